from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimexport_runtime import InputError
from trimexport_runtime.errors import ColumnError
from trimexport_runtime.files import BadLine, Line, read_file, read_lines

REUSE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def _read(path: Path, content: bytes, column: str | None = None) -> list[Line | BadLine]:
    path.write_bytes(content)
    return list(read_file(path, column))


def test_txt_has_a_text_a_line(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfone\r\n\ntw\xc3\xb6\x00\x0b\xe2\x80\xa8!\nbad \xff\nlast"
    assert _read(tmp_path / "a.txt", content) == [
        Line(1, "one"),
        Line(2, ""),
        Line(3, "twö\0\x0b\u2028!"),
        BadLine(4, "the line is not valid UTF-8; save the file as UTF-8"),
        Line(5, "last"),
    ]


def test_csv(tmp_path: Path) -> None:
    content = (
        b"\xef\xbb\xbfid,text\r\n1,plain\r\n\r\n"  # lines 1 to 3
        b'2,"two\r\nlines, and ""quotes"""\r\n'  # 4 and 5
        b"3,\xff\r\n4,too,many\r\n5\r\n"  # 6, 7, 8
        b'6,"last"'  # 9
    )
    found = _read(tmp_path / "a.CSV", content)
    assert found == [
        Line(2, "plain"),
        Line(4, 'two\r\nlines, and "quotes"'),
        BadLine(6, "the line is not valid UTF-8; save the file as UTF-8"),
        BadLine(7, found[3].reason if isinstance(found[3], BadLine) else ""),
        BadLine(8, found[4].reason if isinstance(found[4], BadLine) else ""),
        Line(9, "last"),
    ]
    reasons = [item.reason for item in found if isinstance(item, BadLine)]
    assert reasons[1:] == [
        "the row has 3 fields, the header has 2; put double quotes around a text that has commas",
        "the row has 1 fields, the header has 2; put double quotes around a text that has commas",
    ]


def test_a_quote_that_is_never_closed_costs_one_row(tmp_path: Path) -> None:
    rows = b'text\na\n"open\nb\n"c, d"\n"e" f\ng\n"never\nh\n'
    found = _read(tmp_path / "a.csv", rows)
    assert [item.number for item in found if isinstance(item, BadLine)] == [3, 6, 8]
    assert [(item.number, item.text) for item in found if isinstance(item, Line)] == [
        (2, "a"),
        (4, "b"),
        (5, "c, d"),
        (7, "g"),
        (9, "h"),
    ]
    bad = next(item for item in found if isinstance(item, BadLine))
    assert bad.reason.startswith("the row is not CSV (")
    assert bad.reason.endswith("double every quote inside quotes")


def test_a_long_csv_text(tmp_path: Path) -> None:
    assert _read(tmp_path / "a.csv", b"text\n" + b"a" * 10**6) == [Line(2, "a" * 10**6)]


@REUSE
@given(st.lists(st.tuples(TEXT, TEXT), max_size=20))
def test_what_csv_writes_is_read(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("text", "other"), *rows])
    found = _read(tmp_path / "a.csv", stream.getvalue().encode())
    assert [getattr(item, "text", item) for item in found] == [text for text, _ in rows]


@REUSE
@given(st.lists(TEXT, max_size=20))
def test_what_json_writes_is_read(tmp_path: Path, texts: list[str]) -> None:
    content = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    assert _read(tmp_path / "a.jsonl", content.encode()) == [
        Line(number, text) for number, text in enumerate(texts, start=1)
    ]


@REUSE
@given(st.binary(max_size=200), st.sampled_from(["a.txt", "a.csv", "a.jsonl"]))
def test_no_bytes_make_it_fail(tmp_path: Path, content: bytes, name: str) -> None:
    found = _read(tmp_path / name, b"text,other\n" + content)
    numbers = [item.number for item in found]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", r"the line is not JSON (Expecting property name"),
        (b"[" * 100_000, "the line is not JSON (maximum recursion depth"),
        (b'["a"]', 'the line is not an object; write {"text": "..."}'),
        (b'{"body": "a", "id": 1}', 'the object has no key "text"; its keys: body, id'),
        (b"{}", 'the object has no key "text"; its keys: none'),
        (b'{"text": null}', '"text": a text must be a str, this is NoneType; convert it first'),
        (b'{"text": 3}', '"text": a text must be a str, this is int'),
        (b'{"text": "\\ud800"}', '"text": character 0 is the lone surrogate U+D800'),
        (b'{"text": "\xff"}', "the line is not valid UTF-8"),
    ],
)
def test_a_bad_json_line_costs_one_line(tmp_path: Path, line: bytes, reason: str) -> None:
    content = b'{"text": "a"}\n' + line + b'\n\n{"text": "b"}\n'
    first, bad, last = _read(tmp_path / "a.jsonl", content)
    assert [first, last] == [Line(1, "a"), Line(4, "b")]
    assert isinstance(bad, BadLine)
    assert bad.number == 2
    assert bad.reason.startswith(reason)


def test_another_column(tmp_path: Path) -> None:
    assert _read(tmp_path / "a.csv", b"id,body\n1,a\n", "body") == [Line(2, "a")]
    assert _read(tmp_path / "a.jsonl", b'{"body": "a"}\n', "body") == [Line(1, "a")]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_other_columns_besides_the_texts(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        path.write_text("n,body,more\n1,a,\n2,b,x\n", encoding="utf-8")
    elif kind == "jsonl":
        path.write_text('{"n": 1, "body": "a"}\n{"n": 2, "body": "b", "more": "x"}\n')
    else:
        table = pyarrow.table({"n": [1, 2], "body": ["a", "b"], "more": [None, "x"]})
        pyarrow.parquet.write_table(table, path)
    number = str if kind == "csv" else int
    absent = {"csv": {"more": ""}, "jsonl": {}, "parquet": {"more": None}}[kind]
    first = 2 if kind == "csv" else 1
    assert list(read_file(path, "body", ("n", "more"))) == [
        Line(first, "a", others={"n": number(1), **absent}),
        Line(first + 1, "b", others={"n": number(2), "more": "x"}),
    ]
    assert [it.others for it in read_file(path, "body") if isinstance(it, Line)] == [{}, {}]
    if kind != "jsonl":
        with pytest.raises(ColumnError, match=r'no column "label".*: n, body, more') as error:
            list(read_file(path, "body", ("n", "label")))
        assert error.value.column == "label"


@pytest.mark.parametrize(
    ("name", "content", "column", "message"),
    [
        ("a.tsv", b"", None, r'extension "\.tsv"; .* \.txt, \.csv, \.jsonl, \.parquet: rename'),
        ("a", b"", None, r'extension ""; texts are read from \.txt, \.csv, \.jsonl'),
        ("a.csv", b"a;b\n1;2\n", None, r'no column "text" in its first line; it has: a;b; name'),
        ("a.csv", b"text\n", "body", r'no column "body" .* it has: text; .* with --column'),
        ("a.csv", b"", None, "it has: nothing; name the column"),
        ("a.csv", b'"text\n', None, "the row is not CSV"),
        ("a.txt", b"a\n", "body", "has no columns, so there is no 'body' in it; drop --column"),
    ],
)
def test_a_file_that_holds_no_texts(
    tmp_path: Path, name: str, content: bytes, column: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _read(tmp_path / name, content, column)


def test_lines_have_no_other_columns(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(InputError, match="has no columns, so there is no 'label' in it"):
        read_file(tmp_path / "a.txt", None, ("label",))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt cannot be read \(No such file or directory\)"):
        list(read_file(tmp_path / "none.txt"))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(InputError, match=r"folder\.txt cannot be read \(Is a directory\)"):
        list(read_file(tmp_path / "folder.txt"))


def test_reading_is_lazy() -> None:
    assert next(read_lines(itertools.repeat(b"a\n"))) == Line(1, "a")
