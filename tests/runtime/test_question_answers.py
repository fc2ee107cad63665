"""A bundle that asks several questions: what the runtime answers, prints and writes."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from tiny import TEXTS, spoil
from trimexport_runtime import Classifier, InputError, read_manifest
from trimexport_runtime.bundle import Calibration, Field, Fit
from trimexport_runtime.cli import main
from trimexport_runtime.explain import explain
from trimexport_runtime.jobs.formats import names
from trimexport_runtime.questions import view_of
from trimexport_runtime.ranking import check_ranks
from trimexport_runtime.render import info_text
from trimexport_runtime.render_questions import question_keys

LABELS = {"spam": ("no", "yes"), "mood": ("bad", "fair", "good")}


def run(*arguments: str | Path, stdin: str = "") -> Result:
    return CliRunner().invoke(main, [str(item) for item in arguments], input=stdin)


@pytest.fixture(scope="module")
def classifier(questions: Path) -> Classifier:
    return Classifier.load(questions)


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    shares = np.exp(logits.astype(np.float64))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def test_each_question_has_its_own_answer(classifier: Classifier) -> None:
    logits = classifier.logits(TEXTS)
    assert logits.shape == (len(TEXTS), 5)
    assert classifier.labels == (
        "spam: no", "spam: yes", "mood: bad", "mood: fair", "mood: good",
    )  # fmt: skip
    shares = {"spam": softmax(logits[:, :2]), "mood": softmax(logits[:, 2:])}
    for at, found in enumerate(classifier.classify(TEXTS)):
        assert list(found.answers) == ["spam", "mood"]
        for name, answer in found.answers.items():
            own = shares[name][at]
            assert answer.probabilities == pytest.approx(own)
            assert answer.label == LABELS[name][own.argmax()]
            assert answer.probability == max(answer.probabilities)
            assert (answer.labels, dict(answer.answers)) == ((answer.label,), {})
            assert (answer.tokens, answer.truncated) == (found.tokens, found.truncated)
        both = found.answers["spam"], found.answers["mood"]
        assert found.labels == (f"spam: {both[0].label}", f"mood: {both[1].label}")
        assert found.label == "; ".join(found.labels)
        assert found.probability == min(it.probability for it in both)
        assert found.probabilities == both[0].probabilities + both[1].probabilities


def test_the_table_has_a_cell_for_each_question(questions: Path, classifier: Classifier) -> None:
    result = run("classify", questions, *TEXTS[:2])
    assert (result.exit_code, result.stderr) == (0, "")
    for line, text, found in zip(
        result.stdout.splitlines(), TEXTS[:2], classifier.classify(TEXTS[:2]), strict=True
    ):
        spam, mood = found.answers["spam"], found.answers["mood"]
        assert line.split("\t") == [
            f"spam: {spam.label} {spam.probability:.1%}",
            f"mood: {mood.label} {mood.probability:.1%}",
            text,
        ]


def test_json_has_the_answers_by_their_questions(questions: Path, classifier: Classifier) -> None:
    (found,) = classifier.classify(TEXTS[:1])
    value = json.loads(run("classify", questions, "--json", TEXTS[0]).stdout)
    assert value == {
        "index": 0,
        "text": TEXTS[0],
        "answers": {
            name: {
                "label": answer.label,
                "probability": answer.probability,
                "probabilities": dict(zip(LABELS[name], answer.probabilities, strict=True)),
            }
            for name, answer in found.answers.items()
        },
        "truncated": False,
        "tokens": found.tokens,
        "variant": "fp32",
        "provider": "CPUExecutionProvider",
    }


def test_info_shows_questions(questions: Path) -> None:
    shown = run("info", questions).stdout
    assert '\nquestion    spam: "Does it advertise?"\n            no: no; yes: yes\n' in shown
    assert '\nquestion    mood: "How is it?"\n' in shown
    assert ", suffixes " in shown
    assert "\nlabel       " not in shown
    value = json.loads(run("info", questions, "--json").stdout)
    assert [it["name"] for it in value["questions"]] == ["spam", "mood"]


def test_info_says_what_was_tuned_of_which_question(questions: Path) -> None:
    manifest = read_manifest(questions)
    spam, mood = manifest.questions
    fit = Fit({"bad": 9, "fair": 8, "good": 7}, "", None, None, 1.0, 0.75, 5, "fp32")
    tuned = (
        replace(spam, calibration=Calibration("batch", 9, (0.5, -0.5), None, "fp32")),
        replace(mood, fit=fit),
    )
    shown = info_text(questions, replace(manifest, questions=tuned), checked=False)
    assert "calibration spam: batch on 9 texts: no +0.500, yes -0.500" in shown
    assert "fitted head mood: on bad 9, fair 8, good 7; 75.00% right" in shown


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_files_have_columns_for_each_question(
    questions: Path, classifier: Classifier, tmp_path: Path, suffix: str
) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / f"out{suffix}"
    bad = '{"other": 1}'
    source.write_text("\n".join([json.dumps({"text": TEXTS[0]}), bad]), encoding="utf-8")
    result = run("classify", questions, "--file", source, "-o", output)
    assert result.exit_code == 1, result.output
    (found,) = classifier.classify(TEXTS[:1])
    spam, mood = found.answers["spam"], found.answers["mood"]
    if suffix == ".jsonl":
        first, second = map(json.loads, output.read_text(encoding="utf-8").splitlines())
        assert [first["answers"][name]["label"] for name in LABELS] == [spam.label, mood.label]
        assert "answers" not in second
        return
    if suffix == ".parquet":
        first, second = pyarrow.parquet.read_table(output).to_pylist()
    else:
        with output.open(newline="", encoding="utf-8") as stream:
            first, second = csv.DictReader(stream)
    assert list(first) == [
        "file", "line", "text", "spam", "spam_probability", "mood", "mood_probability",
        "truncated", "tokens", "error",
    ]  # fmt: skip
    assert (first["spam"], first["mood"]) == (spam.label, mood.label)
    assert float(first["spam_probability"]) == spam.probability
    assert float(first["mood_probability"]) == mood.probability
    assert not second["spam"]
    assert second["error"]


def test_columns_of_one_name_are_told_apart(questions: Path) -> None:
    keys = question_keys(("text", "a", "a_probability"), {"text"}, "_probability")
    assert keys == [
        ("question_text", "question_text_probability"),
        ("question_a", "question_a_probability"),
        ("a_probability", "a_probability_probability"),
    ]
    manifest = read_manifest(questions)
    spam, mood = manifest.questions
    prompt = replace(manifest.prompt, fields=(Field("mood"), Field("line", before=(5,))))
    renamed = replace(manifest, prompt=prompt, questions=(replace(spam, name="label"), mood))
    assert names(renamed)[2:8] == [
        "mood", "text_line", "question_label", "question_label_probability", "question_mood",
        "question_mood_probability",
    ]  # fmt: skip


def test_an_explanation_is_of_one_question(questions: Path, classifier: Classifier) -> None:
    text = "a gorgeous witty movie"
    found = explain(classifier, text, question="mood")
    (whole,) = classifier.classify([text])
    assert found.prediction == whole.answers["mood"]
    without = softmax(classifier.logits(["gorgeous witty movie"])[:, 2:])[0]
    place = LABELS["mood"].index(found.prediction.label)
    assert found.parts[0].probability == pytest.approx(without[place], abs=1e-6)
    assert found.parts[0].label == LABELS["mood"][without.argmax()]
    value = json.loads(run("explain", questions, text, "--question", "mood", "--json").stdout)
    assert (value["question"], value["prediction"]["label"]) == ("mood", found.prediction.label)
    assert list(value["prediction"]["probabilities"]) == list(LABELS["mood"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the bundle asks several questions; name one of spam, mood"),
        (("--question", "tone"), "the bundle has no question 'tone'; it has: spam, mood"),
    ],
)
def test_explanations_without_a_question(
    questions: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run("explain", questions, "a text", *arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"Error: {message}\n")


def test_a_bundle_of_one_question_has_no_name_for_it(bundle: Path) -> None:
    with pytest.raises(InputError, match="one question, which has no name; leave the question 'x'"):
        view_of(read_manifest(bundle), "x")


def test_questions_do_not_rank(questions: Path) -> None:
    with pytest.raises(InputError, match="asks 2 questions of a text, so none of its answers is"):
        check_ranks(read_manifest(questions))
    result = run("rerank", questions, "a query", "a passage")
    assert result.exit_code == 1
    assert "asks 2 questions" in result.stderr


def test_a_logit_that_is_no_number_leaves_no_answer(questions: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(questions, tmp_path / "bundle")
    spoil(bundle, "dull")
    first, second = Classifier.load(bundle).classify_each(["a gorgeous, witty movie", "dull"])
    assert not isinstance(first, InputError)
    assert isinstance(second, InputError)
