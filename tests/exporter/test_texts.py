"""Texts and their labels, from files of every kind and from Python."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from trimexport import Columns, SpecError, Texts, evaluate
from trimexport.cli import main
from trimexport.quantize.calibration import poor_calibration
from trimexport.texts import (
    check_sample,
    labelled_texts,
    labels_without_texts,
    read_texts,
)

LABELS = ("positive", "negative")
KINDS = ("csv", "jsonl", "parquet")
TEXTS = ("a, b", "c", "two\nlines")


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def write_rows(
    path: Path, labels: Sequence[object] | None, texts: Sequence[str] = TEXTS, column: str = "label"
) -> Path:
    """Texts with a column of labels, or with another column instead."""
    name, values = (column, labels) if labels is not None else ("id", range(len(texts)))
    if path.suffix == ".parquet":
        table = pyarrow.table({"text": list(texts), name: pyarrow.array(values), "rest": texts})
        pyarrow.parquet.write_table(table, path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            rows = zip(values, texts, strict=True)
            csv.writer(stream).writerows([(name, "text"), *rows])  # None becomes an empty cell
    else:
        rows = ({"text": text, name: value} for text, value in zip(texts, values, strict=True))
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows), encoding="utf-8")
    return path


def refused(path: Path, labels: Sequence[str] | None = None, columns: Columns | None = None) -> str:
    """What is said of a file that is read with labels of one's choice, or with these labels."""
    with pytest.raises(SpecError) as error:
        read_texts(path) if labels is None else labelled_texts(path, labels, columns)
    return str(error.value)


# Texts.


def test_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "t.txt", "one\n\nthree\n")
    assert read_texts(path) == Texts(("one", "", "three"))
    assert read_texts(path).source == str(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.jsonl", '{"text": "a"}\n{"text": 3}\n', 't.jsonl, line 2: "text": a text must be a'),
        ("t.jsonl", '{"text": "a"}\nnonsense\n', "t.jsonl, line 2: the line is not JSON"),
        ("t.csv", "text\na\nb,c\n", "t.csv, line 3: the row has 2 fields"),
        ("t.txt", b"a\nb\n\xff\n", "t.txt, line 3: the line is not valid UTF-8"),
        ("t.csv", "sentence\na\n", 'no column "text" in its first line; it has: sentence; call it'),
        ("t.csv", "label\na\n", 'no column "text" in its first line; it has: label; call it "tex'),
        ("t.pdf", "a", 'has the extension ".pdf"'),
        ("t.txt", "", "t.txt holds no text"),
        ("t.csv", "text,label\n", "t.csv holds no text; give a file with one text a line at lea"),
        ("t.parquet", "", "cannot be read as Parquet"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, name: str, data: str | bytes, message: str
) -> None:
    assert message in refused(write(tmp_path / name, data))


@pytest.mark.parametrize("character", ["\u2028", "\u0085", "\x7f\u2029"])
def test_a_line_ends_only_at_a_line_feed(tmp_path: Path, character: str) -> None:
    text = f"a{character}b"
    path = write(tmp_path / "t.jsonl", f'{{"text": "{text}"}}\r\n{{"text": "c"}}\n')
    assert read_texts(path) == Texts((text, "c"), None)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("none.txt", "none.csv"):
        assert "cannot be read (No such file or directory)" in refused(tmp_path / name)
        assert "No such file" in refused(tmp_path / "none.csv", LABELS)


# Labels: the same rules for every kind of file and every reader.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("written", "labels"),
    [
        (("positive", "negative", "positive"), ("positive", "negative", "positive")),
        ((1, 0, 12), ("1", "0", "12")),
        ((1.0, 0.5, 2.0), ("1.0", "0.5", "2.0")),
        ((True, False, True), ("True", "False", "True")),
    ],
)
def test_labels(
    tmp_path: Path, kind: str, written: tuple[object, ...], labels: tuple[str, ...]
) -> None:
    path = write_rows(tmp_path / f"t.{kind}", written)
    assert read_texts(path) == Texts(TEXTS, labels)
    found = labelled_texts(path, sorted(set(labels)))
    assert found == Texts(TEXTS, labels)
    assert found.source == str(path)
    assert read_texts(path, labels=False) == Texts(TEXTS)
    other = write_rows(tmp_path / f"other.{kind}", written, column="stars")
    names = {labels[1]: "negative", labels[0]: "positive", "12": "positive", "2.0": "positive"}
    columns = Columns(label="stars", names=names)
    expected = ("positive", "negative", "positive")
    assert labelled_texts(other, LABELS, columns) == Texts(TEXTS, expected)
    assert labelled_texts(other, LABELS, columns).places(LABELS).tolist() == [0, 1, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("labels", "line"), [(("a", None, "b"), 2), ((None, 0, None), 1)])
def test_a_line_without_a_label(
    tmp_path: Path, kind: str, labels: tuple[object, ...], line: int
) -> None:
    path = write_rows(tmp_path / f"t.{kind}", labels)
    number = {"csv": line + 1, "jsonl": 2 * line - 1, "parquet": line}[kind]
    message = f"{path}, line {number}: no label; give it one, or leave the line out"
    assert refused(path) == message
    for columns in (None, Columns()):
        assert refused(path, ("a", "b", "0"), columns) == message
    assert read_texts(path, labels=False) == Texts(TEXTS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_line_with_a_label(tmp_path: Path, kind: str) -> None:
    path = write_rows(tmp_path / f"t.{kind}", (None, None, None))
    start = f'the column "label" of {path} is empty on every line; give every line a label'
    assert refused(path) == f"{start}, or leave the column out"
    assert refused(path, LABELS) == start
    assert (
        refused(path, LABELS, Columns()) == f"{start}, or name another column with --label-column"
    )
    assert read_texts(path, labels=False) == Texts(TEXTS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_column_of_labels(tmp_path: Path, kind: str) -> None:
    path = write_rows(tmp_path / f"t.{kind}", None)
    assert read_texts(path) == Texts(TEXTS, None)
    fact = {
        "csv": f'{path} has no column "label" in its first line; it has: id, text; ',
        "jsonl": f'{path} has no key "label" in any line; ',
        "parquet": f'{path} has no column "label"; it has: text, id, rest; ',
    }[kind]
    assert refused(path, LABELS) == fact + 'give it the columns "text" and "label"'
    named = fact.replace('"label"', '"class"') + "name the column of the labels with --label-column"
    assert refused(path, LABELS, Columns(label="class")) == named


@pytest.mark.parametrize("kind", KINDS)
def test_no_column_of_texts(tmp_path: Path, kind: str) -> None:
    path = write_rows(tmp_path / f"t.{kind}", ("a", "b", "c"))
    for label in ("label", "review", "none"):
        said = refused(path, LABELS, Columns("review", label))
        assert 'no column "review"' in said or 'no key "review"' in said
        assert kind == "jsonl" or said.endswith("; name it with --text-column")


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_that_is_none_of_the_bundle_s(tmp_path: Path, kind: str) -> None:
    path = write_rows(tmp_path / f"t.{kind}", ("positive", "negative", "m{e}h"))
    line = {"csv": 4, "jsonl": 5, "parquet": 3}[kind]
    start = f"{path}, line {line}: the label 'm{{e}}h' is none of positive, negative; "
    assert refused(path, LABELS) == f"{start}correct it, or leave the line out"
    assert refused(path, LABELS, Columns()) == f"{start}say which it is with --map m{{e}}h=positive"
    assert read_texts(path).gold == ("positive", "negative", "m{e}h")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pyarrow.array([["a"], [], None]), 'line 1: "label" is of type list; a label is a string,'),
        (pyarrow.array([b"a", b"b", b"c"]), 'line 1: "label" is of type bytes; a label is a strin'),
        (
            pyarrow.array([b"a", b"\xff", b"c"]).view("string"),
            "comes from bytes that are not UTF-8",
        ),
    ],
)
def test_labels_of_parquet_that_are_none(
    tmp_path: Path, labels: pyarrow.Array, message: str
) -> None:
    path = write_rows(tmp_path / "t.parquet", labels)
    assert message in refused(path)
    assert message in refused(path, LABELS)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ('{"a": 1}', '"label" is of type dict; a label is a string, a number or a truth value, so'),
        ("[]", '"label" is of type list'),
        (
            '"\\ud800"',
            '"label": character 0 is the lone surrogate U+D800, which is no character; it',
        ),
        ('""', "is empty on every line"),
        ("NaN", "is empty on every line"),
    ],
)
def test_labels_of_json_that_are_none(tmp_path: Path, label: str, message: str) -> None:
    path = write(tmp_path / "t.jsonl", f'{{"text": "a", "label": {label}}}\n')
    assert message in refused(path)
    assert message in refused(path, LABELS)


def test_other_types_of_parquet(tmp_path: Path) -> None:
    """Categories, as pandas writes them, are strings; NaN is no label; texts may be labels."""
    path = tmp_path / "t.parquet"
    write_rows(path, pyarrow.array(["a", "b", "a"]).dictionary_encode())
    assert read_texts(path).gold == ("a", "b", "a")
    write_rows(path, pyarrow.array([Decimal("1.50"), Decimal("2.00"), Decimal("1.50")]))
    assert read_texts(path).gold == ("1.50", "2.00", "1.50")
    write_rows(path, pyarrow.array([1.0, float("nan"), 2.0]))
    assert "line 2: no label" in refused(path)
    assert labelled_texts(path, TEXTS, Columns(label="text")).gold == TEXTS


def test_of_parquet_two_columns_are_read_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    read = pyarrow.parquet.ParquetFile.iter_batches

    def watched(file: object, *arguments: object, **options: object) -> object:
        asked.append(options["columns"])
        return read(file, *arguments, **options)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", watched)
    read_texts(write_rows(tmp_path / "t.parquet", ("a", "b", "c")))
    read_texts(write_rows(tmp_path / "t.parquet", None))
    assert asked == [["text", "label"], ["text"]]


def test_labels_where_there_can_be_none(tmp_path: Path) -> None:
    path = write(tmp_path / "t.txt", "a\n")
    assert refused(path, LABELS) == f"{path} has no labels; give a .jsonl, .csv or .parquet"


def test_a_name_for_what_is_no_label(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "t.csv", (1, 0, 1))
    said = refused(path, LABELS, Columns(names={"1": "good"}))
    assert said == "'good' is none of the bundle's labels: positive, negative"


# Texts from Python.


def test_texts_that_are_given() -> None:
    given = Texts(("a", "b", "a"), ("negative", "positive", "negative"))
    assert labelled_texts(given, LABELS) is given
    assert given.places(LABELS).tolist() == [1, 0, 1]
    assert given.places(LABELS).dtype == np.int64
    assert given == Texts(given.texts, given.gold, source="elsewhere")
    assert labels_without_texts(given, (*LABELS, "neutral")) == ["neutral"]
    check_sample(Texts(("a",)), LABELS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Texts(()), "there is no text to compare on"),
        (Texts(("a",)), "no labels are known of the data; give every text its label"),
        (Texts(("a", "b"), ("positive",)), "there are 2 texts and 1 right answers; give each text"),
        (Texts(("a",), ("meh",)), "the texts are labelled meh, the bundle's labels are positive, "),
    ],
)
def test_given_texts_that_cannot_be_judged_by(given: Texts, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        labelled_texts(given, LABELS)


# The commands.


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(it) for it in arguments])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("labels", "verified", "evaluated"),
    [
        (("positive", "negative", "negative"), None, None),
        ((1, 0, 0), "the texts are labelled 0, 1, the bundle's labels are", "'1' is none of"),
        (("positive", None, "negative"), "no label; give it one", "no label; give it one"),
        ((None, None, None), "is empty on every line; give", "is empty on every line; give"),
        (None, None, "name the column of the labels with --label-column"),
    ],
)
def test_the_commands(
    tiny_bundle_copy: Path,
    tmp_path: Path,
    kind: str,
    labels: tuple[object, ...] | None,
    verified: str | None,
    evaluated: str | None,
) -> None:
    path = write_rows(tmp_path / f"t.{kind}", labels)
    spec = ("--labels", "positive,negative", "--prompt", "{text} is")
    for command, message in (
        (("verify", tiny_bundle_copy, "--texts", path, "--json"), verified),
        (("eval", tiny_bundle_copy, path, "--json"), evaluated),
        (("build", *spec, "-o", tmp_path / "b", "--texts", path), verified),
    ):
        if command[0] == "build" and message is None:
            continue  # a whole build; what it reads is what `verify` reads
        done = run(*command)
        assert "Traceback" not in done.output
        assert (message or "") in done.stderr
        assert done.exit_code == (message is not None), done.output
        if command[0] == "verify" and message is None:
            accuracy = json.loads(done.stdout)["reference"]["accuracy"]
            assert (accuracy is None) == (labels is None)
            left_out = f'{path} has no column "label", so accuracy is left out; call the column of'
            assert (left_out in done.stderr) == (labels is None)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_are_numbers_are_judged_by(
    tiny_bundle: Path, tmp_path: Path, kind: str
) -> None:
    path = write_rows(tmp_path / f"t.{kind}", (1, 0, 0))
    columns = Columns(names={"0": "negative", "1": "positive"})
    named = Texts(TEXTS, ("positive", "negative", "negative"))
    numbers = evaluate(tiny_bundle, path, columns=columns)
    assert numbers.variants[0].scores == evaluate(tiny_bundle, named).variants[0].scores


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [(1, None, 0), (None, None, None)])
def test_calibrating_passes_labels_over(
    tiny_bundle_copy: Path, tmp_path: Path, kind: str, labels: tuple[object, ...]
) -> None:
    path = write_rows(tmp_path / f"t.{kind}", labels)
    done = run("calibrate", tiny_bundle_copy, "--texts", path, "--json")
    assert json.loads(done.stdout)["texts"] == 3


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (("a",), "there are few calibration texts, 1; give at least 10, better a hundred"),
        (tuple("abcdefghi"), "there are few calibration texts, 9; "),
        (("a",) * 3000, "all 3,000 calibration texts are alike; "),
        (("", "a", "  \n", *"bcdefghi"), "2 of 11 calibration texts are empty; "),
        (("", ""), "all 2 calibration texts are alike; "),
        (tuple("abcdefghij"), None),
    ],
)
def test_texts_that_show_little_of_activations(texts: tuple[str, ...], reason: str | None) -> None:
    found = poor_calibration(Texts(texts))
    assert found is None if reason is None else found is not None and found.startswith(reason)


def test_calibrating_on_no_text() -> None:
    with pytest.raises(SpecError, match="there is no text to calibrate on; give a file with one"):
        poor_calibration(Texts(()))
