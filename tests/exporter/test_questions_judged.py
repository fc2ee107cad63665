"""`eval` of a bundle that asks several questions: the labels that are read, and the scores."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sklearn.metrics import f1_score

from trimexport import Columns, SpecError, evaluate
from trimexport.cli import main
from trimexport.evaluation.question_labels import read_question_labels
from trimexport.evaluation.several_questions import evaluate_questions
from trimexport_runtime import Classifier, read_manifest

ROWS = (
    {"text": "a gorgeous, witty movie", "spam": "no", "mood": "good"},
    {"text": "dull", "spam": "no", "mood": "bad"},
    {"text": "buy two for one", "spam": "yes"},
    {"text": "it never quite comes together", "mood": "fair", "spam": None},
    {"text": "nothing is known of it", "spam": ""},
    {"text": "the best offer of the year", "spam": "yes", "mood": "good"},
    {"text": "see you on Monday", "spam": "no"},
)


def written(directory: Path, *rows: dict[str, object], name: str = "data.jsonl") -> Path:
    path = directory / name
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["eval", *map(str, arguments)])


def test_labels_stand_under_the_questions_names(questions: Path, tmp_path: Path) -> None:
    manifest = read_manifest(questions)
    found = read_question_labels(written(tmp_path, *ROWS), manifest)
    assert len(found.texts) == 6  # without the one that has no label at all
    assert found.of("spam").texts == tuple(ROWS[at]["text"] for at in (0, 1, 2, 5, 6))
    assert found.of("mood").gold == ("good", "bad", "fair", "good")
    assert found.places("mood") == [0, 1, 3, 4]
    table = tmp_path / "data.csv"
    table.write_text("review,mood\na,pos\nb,bad\nc,\n", encoding="utf-8")
    columns = Columns(text="review", names={"pos": "good"})
    named = read_question_labels(table, manifest, columns)
    assert dict(named.gold) == {"mood": ("good", "bad")}
    assert named.texts == ("a", "b")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a", "tone": "no"}, "has no label of any question; give it a column, or a key, "),
        ({"text": "a", "spam": ""}, "called as the question is: spam, mood"),
        ({"text": "a", "spam": "good"}, "line 1: 'good' is no label of the question 'spam', whose"),
        ({"text": "a", "spam": "good"}, "labels are no, yes; say which it is with --map good=no"),
        ({"text": "a", "spam": ["no"]}, '"spam" is of type list; a label is a string'),
        ({"spam": "no"}, "line 1: "),
    ],
)
def test_what_is_wrong_with_labels(
    questions: Path, tmp_path: Path, row: dict[str, object], message: str
) -> None:
    path = written(tmp_path, row)
    with pytest.raises(SpecError, match=re.escape(message)):
        read_question_labels(path, read_manifest(questions))


def test_one_column_of_labels_is_not_of_several_questions(questions: Path, tmp_path: Path) -> None:
    path = written(tmp_path, *ROWS)
    with pytest.raises(SpecError, match="--label-column names the labels of one question"):
        read_question_labels(path, read_manifest(questions), Columns(label="spam"))
    with pytest.raises(SpecError, match="has no labels; give a "):
        read_question_labels(tmp_path / "a.txt", read_manifest(questions))


def test_each_question_is_judged_by_its_own_texts(questions: Path, tmp_path: Path) -> None:
    path = written(tmp_path, *ROWS)
    evaluated = evaluate_questions(questions, path, find=True)
    (evaluation,) = evaluated.variants
    answers = Classifier.load(questions).classify([str(row["text"]) for row in ROWS])
    for own in evaluation.questions:
        pairs = [
            (row[own.question], answer.answers[own.question].label)
            for row, answer in zip(ROWS, answers, strict=True)
            if row.get(own.question)
        ]
        gold, given = zip(*pairs, strict=True)
        assert own.scores.texts == len(pairs)
        assert own.scores.accuracy == np.mean([one == other for one, other in pairs])
        assert own.scores.macro_f1 == pytest.approx(
            f1_score(gold, given, average="macro", zero_division=0)
        )
    spam, mood = evaluation.questions
    assert evaluation.accuracy == pytest.approx((spam.scores.accuracy + mood.scores.accuracy) / 2)
    assert evaluation.macro_f1 == pytest.approx((spam.scores.macro_f1 + mood.scores.macro_f1) / 2)
    # the threshold on the last of two labels
    assert mood.threshold is None
    assert spam.threshold is not None
    rows = [(row["spam"] == "yes", answer.answers["spam"].probabilities[1])
            for row, answer in zip(ROWS, answers, strict=True) if row.get("spam")]  # fmt: skip
    truth, shares = map(np.array, zip(*rows, strict=True))
    best = max(f1_score(truth, shares >= at) for at in shares)
    assert spam.threshold.scores.f1 == pytest.approx(best)
    assert f1_score(truth, shares >= spam.threshold.threshold) == pytest.approx(best)
    assert spam.threshold.found


def test_on_the_command_line(questions: Path, tmp_path: Path) -> None:
    path = written(tmp_path, *ROWS)
    result = run(questions, path, "--threshold", "0.5")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "fp32 (CPUExecutionProvider), 6 texts"
    assert [line.split()[0] for line in lines[2:6]] == ["question", "spam", "mood", "mean"]
    assert sum(line.startswith("  from 0.500000 on") for line in lines) == 1
    value = json.loads(run(questions, path, "--json").stdout)
    (variant,) = value["variants"]
    assert [own["question"] for own in variant["questions"]] == ["spam", "mood"]
    assert variant["questions"][0]["threshold"] is None


def test_what_is_said_beside_the_scores(questions: Path, tmp_path: Path) -> None:
    result = run(questions, written(tmp_path, {"text": "a", "spam": "no"}))
    assert result.exit_code == 0, result.output
    assert "has no label of the question mood" in result.stderr
    assert "spam: no text of" in result.stderr


def test_what_is_refused(questions: Path, tmp_path: Path) -> None:
    path = written(tmp_path, *ROWS)
    result = run(questions, path, "--abstain-below", "0.7")
    assert result.exit_code == 2
    assert "--abstain-below is of a bundle with one question; leave it out." in result.stderr
    with pytest.raises(SpecError, match="asks 2 questions of a text, and each has labels of its"):
        evaluate(questions, path)
    with pytest.raises(SpecError, match="threshold is 2; give a probability from 0 to 1"):
        evaluate_questions(questions, path, threshold=2)
