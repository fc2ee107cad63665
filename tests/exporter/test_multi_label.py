"""Texts with several labels, and what answers to them are worth."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from trimexport import Columns, SpecError
from trimexport.evaluation.label_sets import read_label_sets
from trimexport.evaluation.multi_label import best_threshold, evaluate_independent

LABELS = ("insult", "threat", "spam")


def written(directory: Path, name: str, content: str) -> Path:
    path = directory / name
    path.write_text(content, encoding="utf-8")
    return path


def test_labels_as_lists_and_with_commas(tmp_path: Path) -> None:
    lists = '{"text": "a", "label": ["insult", "spam"]}\n{"text": "b", "label": []}\n'
    commas = 'text,label\na,"insult, spam"\nb,\n'
    for path in (written(tmp_path, "a.jsonl", lists), written(tmp_path, "a.csv", commas)):
        found = read_label_sets(path, LABELS, Columns())
        assert found.texts == ("a", "b")
        assert found.labels == ({"insult", "spam"}, frozenset())
    named = Columns(names={"rude": "insult"})
    path = written(tmp_path, "b.jsonl", '{"text": "a", "label": "rude"}\n')
    assert read_label_sets(path, LABELS, named).labels == ({"insult"},)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "label": ["rude"]}', "the label 'rude' is none of insult, threat, spam"),
        ('{"text": "a", "label": ["rude"]}', "say which it is with --map rude=insult"),
        ('{"text": "a", "label": 3}', '"label" is of type int; independent labels are a list'),
        ('{"text": "a"}', 'has no key "label" in any line; name the column of the labels with'),
        ('{"text": 3, "label": []}', "line 1: "),
        ("", "holds no text; give a file with one text a line at least"),
    ],
)
def test_what_is_wrong_with_texts(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, "a.jsonl", content)
    with pytest.raises(SpecError, match=re.escape(message)):
        read_label_sets(path, LABELS, Columns())


@pytest.mark.parametrize(
    ("header", "option"), [("text,other", "--label-column"), ("other,label", "--text-column")]
)
def test_columns_that_are_not_there(tmp_path: Path, header: str, option: str) -> None:
    path = written(tmp_path, "a.csv", f"{header}\na,b\n")
    with pytest.raises(SpecError, match=f"name it with {option}"):
        read_label_sets(path, LABELS, Columns())


def test_a_threshold_is_of_independent_labels(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match="--threshold is of independent labels or log-odds, and the score of"
    ):
        evaluate_independent(tiny_bundle, tmp_path / "a.jsonl", threshold=0.5)


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better_than_the_best(seed: int) -> None:
    """scikit-learn's micro F1 at the threshold and at every other that answers differently."""
    rng = np.random.default_rng(seed)
    shares = rng.integers(0, 12, (9, 3)) / 11  # some are equal
    truth = rng.random((9, 3)) < shares
    truth[0, 0] = True

    def f1(threshold: float) -> float:
        return float(f1_score(truth, shares >= threshold, average="micro", zero_division=0.0))

    most = max(f1(each) for each in np.unique(shares))
    assert f1(best_threshold(shares, truth)) == pytest.approx(most)
