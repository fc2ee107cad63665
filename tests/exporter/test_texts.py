"""Texts to compare on, with and without right answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trimexport import SpecError, Texts
from trimexport.texts import read_texts


def _write(tmp_path: Path, name: str, data: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_lines(tmp_path: Path) -> None:
    path = _write(tmp_path, "t.txt", "one\n\nthree\n")
    assert read_texts(path) == Texts(("one", "", "three"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.csv", 'text,label\n"a, b",positive\nc,negative\n'),
        ("t.csv", '\ufefflabel,text\npositive,"a, b"\nnegative,c\n'),
        ("t.jsonl", '{"text": "a, b", "label": "positive"}\n\n{"text": "c", "label": "negative"}'),
    ],
)
def test_labelled_texts(tmp_path: Path, name: str, data: str) -> None:
    expected = Texts(("a, b", "c"), ("positive", "negative"))
    assert read_texts(_write(tmp_path, name, data)) == expected


@pytest.mark.parametrize(
    ("name", "data"),
    [("t.csv", "text,other\na,b\n"), ("t.jsonl", '\ufeff{"text": "a", "other": "b"}\n\n')],
)
def test_texts_without_labels(tmp_path: Path, name: str, data: str) -> None:
    assert read_texts(_write(tmp_path, name, data)) == Texts(("a",), None)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.jsonl", '{"text": "a"}\n{"text": 3}\n', "t.jsonl, line 2: "),
        ("t.jsonl", '{"text": "a"}\nnonsense\n', "t.jsonl, line 2: the line is not JSON"),
        ("t.csv", "text\na\nb,c\n", "t.csv, line 3: the row has 2 fields"),
        ("t.txt", b"a\nb\n\xff\n", "t.txt, line 3: the line is not valid UTF-8"),
        ("t.csv", "sentence\na\n", 'has no column "text"'),
        ("t.pdf", "a", 'has the extension ".pdf"'),
        ("t.txt", "", "t.txt holds no text"),
        ("t.csv", "text,label\n", "t.csv holds no text"),
        ("t.jsonl", '{"text": "a", "label": "x"}\n{"text": "b"}\n', "t.jsonl, line 2: "),
        ("t.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n', "t.jsonl, line 1: "),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, name: str, data: str | bytes, message: str
) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        read_texts(_write(tmp_path, name, data))


@pytest.mark.parametrize("character", ["\u2028", "\u0085", "\x7f\u2029"])
def test_a_line_ends_only_at_a_line_feed(tmp_path: Path, character: str) -> None:
    text = f"a{character}b"
    path = _write(tmp_path, "t.jsonl", f'{{"text": "{text}"}}\r\n{{"text": "c"}}\n')
    assert read_texts(path) == Texts((text, "c"), None)


def test_a_label_for_some_texts_only_is_explained(tmp_path: Path) -> None:
    path = _write(tmp_path, "t.jsonl", '{"text": "a"}\n{"text": "b", "label": "x"}\n')
    with pytest.raises(SpecError, match=r"line 1: .*; give every line a 'label' or none"):
        read_texts(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        read_texts(tmp_path / "none.txt")
