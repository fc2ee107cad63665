"""The arithmetic of scores: logits in, probabilities and answers out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tiny
from trimexport_runtime import BundleError, read_manifest
from trimexport_runtime.bundle import Label, Variant
from trimexport_runtime.prediction import Prediction, predictions
from trimexport_runtime.score import Score, answers, log_odds, probabilities
from trimexport_runtime.tokenize import Encoded

VARIANT = Variant("fp32", "onnx/model.onnx", (), "fp32", 23, (), 1)
LOGITS = np.array([[-800.0], [-1.0], [0.0], [2.0], [800.0]])


def predicted(labels: tuple[str, ...], rows: list[list[float]], score: Score) -> list[Prediction]:
    encoded = [Encoded(np.array([1]), False)] * len(rows)
    of_labels = tuple(Label(name, (), (), ()) for name in labels)
    manifest = replace(read_manifest(tiny.tiny_bundle()), labels=of_labels, score=score)
    found = predictions(manifest, VARIANT, encoded, np.array(rows, np.float32))
    assert all(isinstance(it, Prediction) for it in found)
    return [it for it in found if isinstance(it, Prediction)]


def test_a_softmax() -> None:
    found = probabilities(np.array([[1.0, 2.0, 3.0], [900.0, 0.0, 0.0]]), Score())
    expected = np.exp([1.0, 2.0, 3.0]) / np.exp([1.0, 2.0, 3.0]).sum()
    assert found[0] == pytest.approx(expected)
    assert found[1].tolist() == [1.0, 0.0, 0.0]
    assert log_odds(np.log(found[:1]), 2, Score())[0] == pytest.approx(
        np.log(expected[2] / (1 - expected[2]))
    )


def test_log_odds_of_any_size() -> None:
    with np.errstate(all="raise", under="ignore"):
        found = probabilities(LOGITS, Score("log-odds"))
    assert found[:, 0] == pytest.approx([0.0, 1 / (1 + np.e), 0.5, 1 / (1 + np.exp(-2)), 1.0])
    assert found.sum(axis=1) == pytest.approx(1.0)
    assert answers(found, Score("log-odds")).tolist() == [1, 1, 0, 0, 0]
    assert answers(found, Score("log-odds", threshold=0.9)).tolist() == [1, 1, 1, 1, 0]
    for label, sign in ((0, 1), (1, -1)):
        assert np.array_equal(log_odds(LOGITS, label, Score("log-odds")), sign * LOGITS[:, 0])


def test_a_regression_is_its_number() -> None:
    (found,) = predicted(("stars",), [[3.25]], Score("logit", sigmoid=False))
    assert (found.probability, found.probabilities, found.score) == (3.25, (3.25,), 3.25)
    assert found.labels == ("stars",)


def test_independent_labels_from_the_threshold_on() -> None:
    score = Score("independent", threshold=0.75)
    none, both = predicted(("a", "b"), [[0.0, 1.0], [4.0, 5.0]], score)
    assert (none.label, none.labels, none.score) == ("b", (), None)
    assert (both.label, both.labels) == ("b", ("a", "b"))
    assert none.probabilities[0] == 0.5


@pytest.mark.parametrize(
    ("score", "phrase"),
    [
        (Score("logit"), "logit"),
        (Score("logit", 0.2, -6.0), "logit, times 0.2, plus -6"),
        (Score("logit", sigmoid=False), "logit, without a sigmoid"),
        (Score("independent", threshold=0.3), "independent, true from 0.3 on"),
    ],
)
def test_a_score_in_words(score: Score, phrase: str) -> None:
    assert score.phrase == phrase


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "hinge"}, "the score is 'hinge', not one of softmax"),
        ({"kind": "logit"}, "2 labels do not fit the score 'logit'"),
        ({"kind": "log-odds", "sigmoid": False}, "is of probabilities and has no sigmoid"),
        ({"kind": "log-odds", "threshold": 2}, "the score's threshold is 2, not from 0 to 1"),
    ],
)
def test_scores_that_no_bundle_has(
    tiny_bundle_copy: Any, change: dict[str, Any], message: str
) -> None:
    path = tiny_bundle_copy / "trimexport.json"
    tiny.edit_json(path, lambda it: it.update(score=change))
    with pytest.raises(BundleError, match=message):
        read_manifest(tiny_bundle_copy)
