from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import random
from pathlib import Path
from typing import BinaryIO

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimexport_runtime import InputError
from trimexport_runtime.columns import only_column
from trimexport_runtime.encoding import NO_TEXT
from trimexport_runtime.errors import ColumnError
from trimexport_runtime.files import BadLine, Line, read_file, read_lines, sources
from trimexport_runtime.parquet import rows_of

REUSE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def _read(path: Path, content: bytes, column: str | None = None) -> list[Line | BadLine]:
    path.write_bytes(content)
    return list(read_file(path, column))


def test_txt_has_a_text_a_line(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfone\r\n\ntw\xc3\xb6\x0b\xe2\x80\xa8!\nbad \xff\nand \x00\nlast"
    assert _read(tmp_path / "a.txt", content) == [
        Line(1, "one"),
        Line(2, ""),
        Line(3, "twö\x0b\u2028!"),
        BadLine(4, "the line is not valid UTF-8; save the file as UTF-8"),
        BadLine(5, NO_TEXT),
        Line(6, "last"),
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


STARTS = (b"", b"\xff\xfe", b"\0", b"\r", b"text;a\n", b"text\r", b"text,text\n", b"PAR1")


@REUSE
@given(
    st.sampled_from(STARTS),
    st.binary(max_size=100),
    st.sampled_from(["a.txt", "a.csv", "a.jsonl", "a.parquet"]),
)
def test_no_file_fails_but_by_what_it_is(
    tmp_path: Path, start: bytes, content: bytes, name: str
) -> None:
    with contextlib.suppress(InputError):
        found = _read(tmp_path / name, start + content)
        assert all(isinstance(item, Line | BadLine) for item in found)


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
        (
            b'{"text": "\\ud83d"}',
            '"text": character 0 is the lone surrogate U+D83D, which is no character; it is half '
            "of a character that was cut in two: write both halves, in JSON as",
        ),
        (b'{"text": "a", "text": "b"}', 'the object has the key "text" twice; leave one out'),
        (b'{"text": "\0"}', "the line has a NUL byte"),
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
        ("a.csv", b"a;b\n1;2\n", None, r"has semicolons between its fields, a .csv has commas"),
        ("a.csv", b"a;b\n1;2;3\n", None, r'no column "text" in its first line; it has: a;b; name'),
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


def test_a_name_that_the_system_refuses(tmp_path: Path) -> None:
    path = tmp_path / f"{'a' * 300}.txt"
    assert [source.path for source in sources(path)] == [path]
    with pytest.raises(InputError, match=r"cannot be read \(File name too long\)"):
        list(read_file(path))


def test_reading_is_lazy() -> None:
    assert next(read_lines(itertools.repeat(b"a\n"))) == Line(1, "a")


@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl"])
@pytest.mark.parametrize("text", ["a warm film", "тёплый фильм"])
@pytest.mark.parametrize(
    ("codec", "mark", "said"),
    [
        ("utf-16-le", "", "UTF-16LE"),
        ("utf-16-be", "", "UTF-16BE"),
        ("utf-16-le", "\ufeff", "UTF-16"),
        ("utf-16-be", "\ufeff", "UTF-16"),
        ("utf-32-le", "", "UTF-32LE"),
        ("utf-32-be", "", "UTF-32BE"),
        ("utf-32-le", "\ufeff", "UTF-32"),
        ("utf-32-be", "\ufeff", "UTF-32"),
    ],
)
def test_another_encoding_is_named(
    tmp_path: Path, kind: str, text: str, codec: str, mark: str, said: str
) -> None:
    line = {"txt": text, "csv": f"id,text\r\n1,{text}", "jsonl": json.dumps({"text": text})}[kind]
    path = tmp_path / f"a.{kind}"
    with pytest.raises(InputError, match=rf"{path} is {said}, .* iconv -f {said} -t UTF-8$"):
        _read(path, f"{mark}{line}\r\n".encode(codec))
    with pytest.raises(InputError, match=rf"standard input is {said}, "):
        list(read_lines(io.BytesIO(f"{mark}{text}\n".encode(codec))))


def test_what_is_appended_in_utf16_costs_its_lines(tmp_path: Path) -> None:
    found = _read(tmp_path / "a.txt", b"one\n" + "two\n".encode("utf-16-le"))
    assert found == [Line(1, "one"), BadLine(2, NO_TEXT), BadLine(3, NO_TEXT)]


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"PK\x03\x04\x14\0", "a ZIP archive, as .xlsx and .ods files are"),
        (b"\x1f\x8b\x08\0", "compressed with gzip"),
        (b"PAR1\x15", "a Parquet file"),
    ],
)
def test_a_binary_file_is_named(tmp_path: Path, start: bytes, said: str) -> None:
    with pytest.raises(InputError, match=rf"a\.csv is {said}, and texts are read as UTF-8; "):
        _read(tmp_path / "a.csv", start)


@pytest.mark.parametrize(
    ("kind", "lines"), [("txt", b"a\rb"), ("csv", b"text\ra"), ("jsonl", b'{"text":"a"}\r{}')]
)
def test_lines_that_end_with_carriage_returns_alone(
    tmp_path: Path, kind: str, lines: bytes
) -> None:
    for content in (lines, lines + b"\r"):
        with pytest.raises(InputError, match=r"carriage returns \(CR\) alone, so that it is one"):
            _read(tmp_path / f"a.{kind}", content)


def test_a_carriage_return_within_a_text_stays(tmp_path: Path) -> None:
    assert _read(tmp_path / "a.txt", b"a\rb\n") == [Line(1, "a\rb")]
    assert _read(tmp_path / "b.txt", b"a\r") == [Line(1, "a")]
    first, second = _read(tmp_path / "a.csv", b'text\n"a\rb"\na\rb\n')
    assert first == Line(2, "a\rb")
    assert isinstance(second, BadLine)
    assert second.reason.startswith("the row is not CSV (a carriage return stands alone in it)")


@pytest.mark.parametrize(
    ("separator", "words"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")]
)
@pytest.mark.parametrize("quoted", [False, True])
def test_another_separator_is_named(
    tmp_path: Path, separator: str, words: str, quoted: bool
) -> None:
    rows = [("text", "label"), ("a, b", "1"), ("two\nlines", "0"), *[("c", "1")] * 20]
    stream = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(stream, delimiter=separator, quoting=quoting).writerows(rows)
    path = tmp_path / "a.csv"
    for column in ("text", "label", f"text{separator}label", "none"):
        with pytest.raises(InputError, match=f"has {words} between its fields, a .csv has commas"):
            _read(path, stream.getvalue().encode(), column)


def test_a_column_whose_texts_have_semicolons(tmp_path: Path) -> None:
    content = b"text\na; b\nc; d\n"
    assert _read(tmp_path / "a.csv", content) == [Line(2, "a; b"), Line(3, "c; d")]
    named = b"why; or why not\nso\nso; and so; on\n"
    assert _read(tmp_path / "b.csv", named, "why; or why not") == [
        Line(2, "so"),
        Line(3, "so; and so; on"),
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_two_columns_of_one_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        path.write_text("text,label,label\na,1,2\n")
    else:
        columns = [pyarrow.array([it]) for it in ("a", "1", "2")]
        table = pyarrow.Table.from_arrays(columns, names=["text", "label", "label"])
        pyarrow.parquet.write_table(table, path)
    assert [it.text for it in read_file(path) if isinstance(it, Line)] == ["a"]
    for column, others in (("label", ()), ("text", ("label",))):
        with pytest.raises(InputError, match=r'has several columns "label"; rename all but the'):
            list(read_file(path, column, others))


@pytest.mark.parametrize(
    "values",
    [
        pyarrow.array([1], pyarrow.duration("ns")),
        pyarrow.array([1 << 30], pyarrow.date32()),
        pyarrow.array([0], pyarrow.timestamp("s", "Nowhere/None")),
    ],
    ids=["duration", "date", "timestamp"],
)
def test_values_that_python_cannot_hold(tmp_path: Path, values: pyarrow.Array) -> None:
    pyarrow.parquet.write_table(
        pyarrow.table({"text": ["a"], "label": values}), tmp_path / "a.parquet"
    )
    with pytest.raises(InputError, match=r"a\.parquet cannot be read as Parquet \("):
        list(read_file(tmp_path / "a.parquet", None, ("label",)))


@pytest.mark.parametrize("kind", [pyarrow.null(), pyarrow.string(), pyarrow.int64()], ids=str)
def test_a_column_of_nulls(tmp_path: Path, kind: pyarrow.DataType) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": ["a", "b"], "label": pyarrow.nulls(2, kind)})
    pyarrow.parquet.write_table(table, path)
    found = list(read_file(path, None, ("label",)))
    assert [it.others for it in found if isinstance(it, Line)] == [{"label": None}] * 2


def test_only_the_columns_that_are_asked_for_are_read(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.parquet", 1_000
    table = pyarrow.table(
        {
            "text": [f"row {number}" for number in range(rows)],
            "text.more": [random.Random(number).randbytes(2_000) for number in range(rows)],
        }
    )
    pyarrow.parquet.write_table(table, path, row_group_size=100)
    with path.open("rb") as stream:
        counted = _Counted(stream)
        assert len(list(rows_of(path, counted, only_column()))) == rows  # type: ignore[arg-type]
    assert 0 < counted.bytes < path.stat().st_size / 10


class _Counted:
    """A stream that counts the bytes that are read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        found = self._stream.read(size)
        self.bytes += len(found)
        return found

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
