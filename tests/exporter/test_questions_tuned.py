"""`calibrate` and `fit` of a bundle that asks several questions: what they change of which."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import tiny
from trimexport import SpecError, Texts, calibrate, fit, undo_calibration, verify
from trimexport.bundle.question_heads import read_question_head
from trimexport.bundle.written_graph import load_graph
from trimexport.cli import main
from trimexport.numerics import softmax
from trimexport.progress import Silent
from trimexport.tuning.bias import calibrate_questions
from trimexport.tuning.fit import fit_questions
from trimexport.tuning.hidden_states import read_states
from trimexport.tuning.per_question import bias_of_all
from trimexport.tuning.regression import logits_of
from trimexport_runtime import Classifier, InputError, check_files, read_manifest
from tuning import made

MOODS = {"positive": "good", "negative": "bad", "neutral": "fair"}
SPAM, MOOD = slice(0, 2), slice(2, 5)


@pytest.fixture
def bundle(questions: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(questions, tmp_path / "place" / "bundle"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def logits(bundle: Path, texts: Sequence[str] = tiny.TEXTS) -> np.ndarray:
    return Classifier.load(bundle).logits(texts).astype(np.float64)


def written(path: Path, count: int = 60) -> Path:
    """Examples: each with a mood, every third without a label of spam."""
    data = made()
    lines = []
    for place, (text, label) in enumerate(zip(data.texts, data.gold or (), strict=True)):
        row = {"text": text, "mood": MOODS[label], "spam": "yes" if "oil" in text else "no"}
        if place % 5 == 0:
            del row["spam"]
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines[:count]), encoding="utf-8")
    return path


def test_all_questions_are_calibrated_each_by_itself(bundle: Path) -> None:
    before = logits(bundle)
    both = calibrate_questions(bundle, tiny.TEXTS)
    assert [it.question for it in both] == ["spam", "mood"]
    assert [it.labels for it in both] == [("no", "yes"), ("bad", "fair", "good")]
    manifest = read_manifest(bundle)
    assert (manifest.calibration, manifest.fit) == (None, None)
    check_files(bundle, manifest, hashes=True)
    bias = bias_of_all(manifest)
    assert bias is not None
    found = logits(bundle)
    assert found == pytest.approx(before + bias, abs=1e-4)
    for it, part, question in zip(both, (SPAM, MOOD), manifest.questions, strict=True):
        assert question.calibration == it.calibration
        assert it.calibration.bias == pytest.approx(bias[part])
        assert it.after == pytest.approx(softmax(found[:, part]).mean(axis=0), abs=1e-5)
        # its own labels are evened out, and nothing of the other question's comes into that
        shares = softmax(before[:, part]).mean(axis=0)
        expected = -np.log(shares) + np.log(shares).mean()
        assert bias[part] == pytest.approx(expected, abs=1e-5)


def test_one_question_is_calibrated_and_the_others_stay(bundle: Path) -> None:
    before = logits(bundle)
    prior = {"no": 0.9, "yes": 0.1}
    calibrate(bundle, tiny.TEXTS, prior, question="spam")
    found = logits(bundle)
    assert np.array_equal(found[:, MOOD], before[:, MOOD])
    assert softmax(found[:, SPAM]).mean(axis=0) == pytest.approx([0.9, 0.1], abs=1e-5)
    calibrate(bundle, tiny.TEXTS, question="mood")
    assert softmax(logits(bundle)[:, SPAM]).mean(axis=0) == pytest.approx([0.9, 0.1], abs=1e-5)
    undo_calibration(bundle, question="spam")
    assert np.array_equal(logits(bundle)[:, SPAM], before[:, SPAM])
    manifest = read_manifest(bundle)
    assert manifest.questions[0].calibration is None
    assert manifest.questions[1].calibration is not None
    with pytest.raises(SpecError, match="no calibration of the question 'spam' to undo"):
        undo_calibration(bundle, question="spam")
    undo_calibration(bundle)
    assert np.array_equal(logits(bundle), before)


def test_calibrate_on_the_command_line(bundle: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one text\nand another\n", encoding="utf-8")
    result = run("calibrate", bundle, "--texts", texts)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("spam:\nlabel ")
    assert "\nmood:\nlabel " in result.stdout
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert "Calibrated: spam: batch on 2 texts, logits moved by no " in card
    assert "; mood: batch on 2 texts, logits moved by bad " in card
    value = json.loads(run("calibrate", bundle, "--texts", texts, "--json").stdout)
    assert [it["question"] for it in value["questions"]] == ["spam", "mood"]
    value = json.loads(
        run("calibrate", bundle, "--content-free", "--question", "mood", "--json").stdout
    )
    assert (value["question"], list(value["bias"])) == ("mood", ["bad", "fair", "good"])
    wrong = run("calibrate", bundle, "--texts", texts, "--prior", "no=0.5,yes=0.5")
    assert wrong.exit_code == 2
    assert "name the question with --question, one of spam, mood" in wrong.stderr
    wrong = run("calibrate", bundle, "--texts", texts, "--question", "tone")
    assert wrong.exit_code == 1
    assert "the bundle has no question 'tone'; it has: spam, mood" in wrong.stderr


def test_a_question_has_to_be_named_in_python(bundle: Path, tmp_path: Path) -> None:
    for call in (
        lambda: calibrate(bundle, tiny.TEXTS),
        lambda: fit(bundle, tmp_path / "out", written(tmp_path / "examples.jsonl")),
    ):
        with pytest.raises(InputError, match="several questions; name one of spam, mood"):
            call()


def test_every_question_with_examples_is_fitted(bundle: Path, tmp_path: Path) -> None:
    calibrate_questions(bundle, tiny.TEXTS)
    examples, output = written(tmp_path / "examples.jsonl"), tmp_path / "fitted"
    each = fit_questions(bundle, output, examples)
    assert [it.question for it in each] == ["spam", "mood"]
    manifest = read_manifest(output)
    check_files(output, manifest, hashes=True)
    assert manifest.label_mass is None
    spam, mood = (question.fit for question in manifest.questions)
    assert spam is not None
    assert mood is not None
    assert sum(mood.examples.values()) == 60
    assert sum(spam.examples.values()) == 48
    assert [question.calibration for question in manifest.questions] == [None, None]
    texts = [json.loads(line)["text"] for line in examples.read_text("utf-8").splitlines()]
    found = logits(output, texts)
    for place, (name, part) in enumerate((("spam", SPAM), ("mood", MOOD))):
        head = read_question_head(load_graph(output / manifest.variants[0].graph), place)
        assert head is not None
        states = read_states(output, manifest, manifest.variants[0], texts, Silent(), name)
        expected = logits_of(head, states.hidden.astype(np.float64))
        assert found[:, part] == pytest.approx(expected, abs=2e-4)
    report = json.loads((output / "reports/fit.json").read_text("utf-8"))
    assert list(report["questions"]) == ["spam", "mood"]
    card = (output / "README.md").read_text("utf-8")
    assert "That of spam was fitted on " in card
    assert "That of mood was fitted on 20 examples of bad" in card
    verified = verify(output, sample=Texts(tiny.TEXTS))
    assert verified.variants[0].max_logit_difference < 1e-3


def test_one_question_is_fitted_and_the_others_stay(bundle: Path, tmp_path: Path) -> None:
    calibrate(bundle, tiny.TEXTS, question="spam")
    before = logits(bundle)
    examples, output = written(tmp_path / "examples.jsonl"), tmp_path / "fitted"
    result = run("fit", bundle, "--examples", examples, "--question", "mood", "-o", output)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("mood:\n60 texts (held out in turn)")
    found = logits(output)
    assert np.array_equal(found[:, SPAM], before[:, SPAM])
    assert not np.allclose(found[:, MOOD], before[:, MOOD], atol=1e-2)
    spam, mood = read_manifest(output).questions
    assert (spam.fit, mood.calibration) == (None, None)
    assert spam.calibration is not None
    # a head that was fitted before is where the next one starts
    again = tmp_path / "again"
    fit(output, again, examples, question="mood")
    assert np.array_equal(logits(again)[:, SPAM], before[:, SPAM])
    manifest = read_manifest(output)
    states = read_states(output, manifest, manifest.variants[0], ["a"], Silent(), "mood")
    assert states.head.weight.shape == (3, 32)


def test_examples_without_the_questions_labels(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text('{"text": "a", "mood": "good"}', encoding="utf-8")
    result = run("fit", bundle, "--examples", path, "--question", "spam", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert f"{path} has no label of the question 'spam'; give it a column or key" in result.stderr
    result = run("fit", bundle, "--examples", path, "--question", "tone", "-o", tmp_path / "out")
    assert "the bundle has no question 'tone'; it has: spam, mood" in result.stderr
