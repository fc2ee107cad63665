"""`trimexport eval`: what is computed, from which files, and what is written."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from packages import ROOT
from trimexport import EvaluationError, SpecError, Texts, evaluate, fit
from trimexport.cli import main
from trimexport.evaluation.intervals import wilson
from trimexport.evaluation.metrics import compare, score
from trimexport_runtime import BundleError, Classifier, check_files, read_manifest

LABELS = ("positive", "negative")
ROWS = [
    ("a gorgeous, witty, seductive movie", "positive"),
    ("two hours that feel like five", "negative"),
    ("a warm and funny film", "negative"),  # wrong on purpose: a mistake to be found
    ("dull", "negative"),
]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["eval", *map(str, arguments)])


def write(path: Path, rows: list[tuple[str, Any]]) -> Path:
    texts, labels = zip(*rows, strict=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": labels}), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("text", "label"), *rows])
    else:
        lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
        path.write_text("".join(lines), encoding="utf-8")
    return path


def test_numbers_that_can_be_checked_by_hand() -> None:
    gold = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.05, 0.95]])
    found = score(gold, probabilities, LABELS)
    assert found.accuracy == 0.75
    assert found.confusion == ((2, 1), (0, 1))
    positive, negative = found.labels
    assert (positive.precision, positive.recall, positive.support) == (1.0, pytest.approx(2 / 3), 3)
    assert (negative.precision, negative.recall, negative.support) == (0.5, 1.0, 1)
    assert found.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    # Each probability has a bin of its own but for 0.95, which shares none with 0.9.
    assert found.calibration_error == pytest.approx((0.1 + 0.2 + 0.6 + 0.05) / 4)
    at_70 = next(point for point in found.coverage if point.threshold == 0.7)
    assert (at_70.coverage, at_70.accuracy) == (0.75, 1.0)


def test_a_label_that_nobody_has_or_gives_costs_nothing() -> None:
    found = score(np.array([0, 1]), np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]), ("a", "b", "c"))
    assert found.macro_f1 == 1.0


def test_wilson_s_interval() -> None:
    """The worked example of 81 in 263 (Newcombe 1998, Statistics in Medicine 17)."""
    assert wilson(81, 263) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0


def test_mcnemar_s_test() -> None:
    first = np.array([True] * 10 + [False] * 2 + [True] * 30)
    second = np.array([False] * 10 + [True] * 2 + [True] * 30)
    found = compare(first, second)
    assert (found.only_first, found.only_second) == (10, 2)
    assert found.p_value == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert found.difference == pytest.approx(-8 / 42)
    assert found.interval[0] < found.difference < found.interval[1] < 0.0
    assert compare(first, first).p_value == 1.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 99)), min_size=1, max_size=60))
def test_what_holds_for_all_answers(items: list[tuple[int, int]]) -> None:
    gold = np.array([place for place, _ in items])
    first = np.array([share / 100 for _, share in items])
    probabilities = np.stack([first, (1 - first) * 0.6, (1 - first) * 0.4], axis=1)
    found = score(gold, probabilities, ("a", "b", "c"))
    low, high = found.interval
    assert 0 <= low <= found.accuracy <= high <= 1
    assert sum(map(sum, found.confusion)) == len(items) == sum(it.count for it in found.bins)
    coverages = [point.coverage for point in found.coverage]
    assert coverages[0] == 1.0
    assert coverages == sorted(coverages, reverse=True)
    order = np.random.default_rng(0).permutation(len(items))
    again = score(gold[order], probabilities[order], ("a", "b", "c"))
    assert again.calibration_error == pytest.approx(found.calibration_error)
    assert (again.accuracy, again.confusion) == (found.accuracy, found.confusion)


def test_the_command(sentiment: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(sentiment, tmp_path / "bundle")
    data = write(tmp_path / "test.jsonl", ROWS)
    result = run(bundle, data, "--abstain-below", "0.6")
    assert result.exit_code == 0, result.output
    assert "accuracy                 75.00% (95 %: 30.06% to 95.44%)" in result.stdout
    assert "from 60% on" in result.stdout
    page = bundle / "reports" / "eval-test.html"
    assert result.stdout.endswith(f"{page}\n")
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 4
    assert "a warm and funny film" in html
    assert 'src="' not in html
    assert 'href="http' not in html
    check_files(bundle, read_manifest(bundle), hashes=True)  # reports are no part of it

    value = json.loads(page.with_suffix(".json").read_text())
    (variant,) = value["variants"]
    expected = Classifier.load(bundle).classify([text for text, _ in ROWS])
    assert [LABELS[at] for at in variant["answers"]] == [it.label for it in expected]
    assert variant["confidence"] == [it.probability for it in expected]
    assert variant["mistakes"][0]["index"] == 2
    assert (variant["mistakes"][0]["gold"], variant["mistakes"][0]["answer"]) == LABELS[::-1]


def test_the_page_shows_texts_and_names_as_they_are(sentiment: Path, tmp_path: Path) -> None:
    text = "<b>warm</b> &amp; funny"
    data = write(tmp_path / "a & <i>.csv", [(text, label) for label in LABELS])  # one is wrong
    assert run(sentiment, data, "-o", tmp_path / "page.html").exit_code == 0
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<td>&lt;b&gt;warm&lt;/b&gt; &amp;amp; funny</td>" in html
    assert html.count("on a &amp; &lt;i&gt;.csv</") == 2  # title and heading
    assert "<b>" not in html
    assert "<i>" not in html


def test_a_comparison(sentiment: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "test.csv", ROWS)
    first = tmp_path / "first.html"
    assert run(sentiment, data, "-o", first).exit_code == 0
    again = run(
        sentiment, data, "-o", tmp_path / "b.html", "--json", "--compare", tmp_path / "first.json"
    )
    shown = run(sentiment, data, "-o", tmp_path / "b.html", "--compare", tmp_path / "first.json")
    assert "p = 1; 0 texts are right only now, 0 were right only then" in shown.stdout
    (variant,) = json.loads(again.stdout)["variants"]
    assert variant["comparison"]["difference"] == 0
    assert variant["comparison"]["p_value"] == 1
    other = write(tmp_path / "other.csv", ROWS[:3])
    for file, message in (
        (tmp_path / "first.json", "is of other texts or labels, so the two cannot be compared"),
        (first, "is no evaluation; give the .json that `trimexport eval` wrote"),
        (tmp_path / "none.json", "cannot be read (No such file or directory)"),
    ):
        refused = run(sentiment, other, "-o", tmp_path / "c.html", "--compare", file)
        assert refused.exit_code == 1
        assert message in refused.stderr
        assert not (tmp_path / "c.html").exists()


def test_what_is_odd_about_the_data_is_said(sentiment: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "test.jsonl", [ROWS[0], ROWS[0]])
    result = run(sentiment, data, "-o", tmp_path / "a.html")
    assert result.exit_code == 0
    assert "has the label negative" in result.stderr
    assert "1 texts of" in result.stderr


def test_a_place_that_cannot_be_written(sentiment: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    data = write(tmp_path / "test.jsonl", ROWS)
    result = run(sentiment, data, "-o", tmp_path / "file" / "page.html")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "cannot be written" in result.stderr


@pytest.mark.parametrize("name", ["page.json", "test.jsonl", "page.csv", "page"])
def test_a_page_that_is_named_otherwise(sentiment: Path, tmp_path: Path, name: str) -> None:
    """Its JSON would take its place, or it would take that of the data."""
    data = write(tmp_path / "test.jsonl", [("good", "positive")])
    before = data.read_bytes()
    result = run(sentiment, data, "-o", tmp_path / name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: {tmp_path / name} is named as the page, which is HTML; end its name in .html, and "
        "a .json of that name is written beside it\n"
    )
    assert [it.name for it in tmp_path.iterdir()] == ["test.jsonl"]
    assert data.read_bytes() == before


def test_without_its_libraries(sentiment: Path, tmp_path: Path) -> None:
    (tmp_path / "sklearn").mkdir()
    (tmp_path / "sklearn" / "__init__.py").write_text("raise ImportError('not here')")
    start = "from trimexport.cli import main; main()"
    data = ROOT / "docs" / "examples" / "reviews.csv"
    found = subprocess.run(
        [sys.executable, "-c", start, "eval", str(sentiment), str(data)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1
    assert found.stderr == (
        "Error: evaluating needs scikit-learn and matplotlib (not here); install "
        "`trimexport[eval]`\n"
    )


# From Python.


def test_texts_from_python_are_evaluated_like_those_of_a_file(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    texts, gold = zip(*ROWS, strict=True)
    found = evaluate(tiny_bundle, Texts(texts, gold), variants=("all",))
    data = write(tmp_path / "test.csv", ROWS)
    page = tmp_path / "place" / "page.html"
    same = evaluate(tiny_bundle, data, abstain_below=0.5, page=page)
    assert (found.labels, found.digest) == (LABELS, same.digest)
    assert (found.data, same.data) == ("the data", str(data))
    assert [it.variant for it in found.variants] == ["fp32"]
    assert found.variants[0].scores == same.variants[0].scores
    assert (found.variants[0].abstention, same.variants[0].abstention is None) == (None, False)
    assert page.is_file()
    value = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert value["variants"][0]["answers"] == found.variants[0].answers.tolist()
    again = evaluate(tiny_bundle, data, compare=page.with_suffix(".json"))
    assert again.variants[0].comparison is not None
    assert again.variants[0].comparison.difference == 0
    with pytest.raises(BundleError, match="no variant"):
        evaluate(tiny_bundle, data, variants=("int8",))
    with pytest.raises(SpecError, match="no labels are known of the data; give every text its"):
        evaluate(tiny_bundle, Texts(texts))
    for threshold in (float("nan"), -0.1, 1.1):
        with pytest.raises(SpecError, match=f"abstain_below is {threshold}; give a probability"):
            evaluate(tiny_bundle, data, abstain_below=threshold)


def test_notes_from_python(tiny_bundle: Path) -> None:
    found = evaluate(tiny_bundle, Texts(("a", "b", "a"), ("positive",) * 3))
    assert found.notes == (
        "no text of the data has the label negative",
        "1 texts of the data stand there before",
    )


def test_python_without_the_libraries(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    message = r"needs scikit-learn and matplotlib \(.*\); install `trimexport\[eval\]`"
    with pytest.raises(EvaluationError, match=f"evaluating {message}"):
        evaluate(tiny_bundle, tmp_path / "none.csv")
    with pytest.raises(EvaluationError, match=f"fitting {message}"):
        fit(tiny_bundle, tmp_path / "new", tmp_path / "none.csv")
    assert not (tmp_path / "new").exists()
