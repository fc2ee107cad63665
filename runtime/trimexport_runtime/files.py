"""Texts from files, directories and pipes, one at a time, each with the number of its line.

A line that cannot be read becomes a `BadLine` in its place, and the others are read all the same.
"""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from .errors import ColumnError, InputError
from .parquet import rows_of
from .tokenize import problem_of

DEFAULT_COLUMN = "text"
_RECORD_LIMIT = 1 << 24  # characters of one CSV row, so that an unclosed quote is noticed
_NOT_UTF8 = "the line is not valid UTF-8; save the file as UTF-8"


@dataclass(frozen=True)
class Source:
    """A file of texts. `name` is what results call it: its path within the directory that was
    given, or its own name, with what is not UTF-8 escaped."""

    name: str
    path: Path


@dataclass(frozen=True)
class Line:
    """A text and the number of the file's line (in Parquet, row) where it begins, from 1; `file`
    is the source's name where there are several; `others` are the values of other columns that
    were asked for, by their names."""

    number: int
    text: str
    file: str | None = None
    others: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class BadLine:
    """A line that holds no text, and the reason why; `number` and `file` are as in `Line`."""

    number: int
    reason: str
    file: str | None = None


def sources(path: Path) -> list[Source]:
    """The files of texts that `path` stands for: itself, or those below a directory by path.

    In a directory, files with another extension are passed over, and so are files and folders whose
    names begin with a dot or an underscore.

    Raises:
        InputError: the directory has no such files.
    """
    if not path.is_dir():
        return [Source(_named(path.name), path)]
    files = []
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        hidden = any(piece.startswith((".", "_")) for piece in name.parts)
        if file.suffix.lower() in READERS and not hidden and file.is_file():
            files.append(Source(_named(name.as_posix()), file))
    if not files:
        raise InputError(f"{path} is a directory without any {', '.join(READERS)} in it")
    return files


def _named(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def read_file(
    path: Path, column: str | None = None, others: Sequence[str] = ()
) -> Iterator[Line | BadLine]:
    """Read texts from a file, as they are asked for.

    `.txt` has one text a line, blank lines included. `.csv` has a header and a column `column`;
    `.jsonl` has one object a line with a key `column`; in both blank lines are skipped. These are
    UTF-8, with or without a byte order mark. `.parquet` has a column `column` of strings, and needs
    pyarrow. `column` is `text` if None.

    Args:
        others: columns whose values, of any type, are read besides; an object of `.jsonl` may lack
            them.

    Raises:
        InputError: another extension, no such file, a header without one of the columns, or a
            column for a `.txt` file.
    """
    known = ", ".join(READERS)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f'{path} has the extension "{path.suffix}"; texts are read from {known}: '
            "rename or convert the file"
        )
    if reader is _txt and (named := [*filter(None, (column, *others))]):
        raise InputError(f"{path} has no columns, so there is no {named[0]!r} in it; drop --column")
    return _opened(path, lambda stream: reader(path, stream, column or DEFAULT_COLUMN, others))


def read_lines(stream: Iterable[bytes]) -> Iterator[Line | BadLine]:
    """Read one text a line from a binary stream, as they are asked for."""
    for number, text in _decoded(stream):
        if problem_of(text):
            yield BadLine(number, _NOT_UTF8)
        else:
            yield Line(number, text.removesuffix("\n").removesuffix("\r"))


def _opened(
    path: Path, read: Callable[[BinaryIO], Iterator[Line | BadLine]]
) -> Iterator[Line | BadLine]:
    try:
        with path.open("rb") as stream:
            yield from read(stream)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); give a file of texts"
        ) from None


def _decoded(stream: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """Lines with their numbers and ends; bytes that are not UTF-8 become lone surrogates."""
    for number, raw in enumerate(stream, start=1):
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        yield number, raw.decode("utf-8", errors="surrogateescape")


def _txt(
    path: Path, stream: BinaryIO, column: str, others: Sequence[str]
) -> Iterator[Line | BadLine]:
    return read_lines(stream)


def _jsonl(
    path: Path, stream: BinaryIO, column: str, others: Sequence[str]
) -> Iterator[Line | BadLine]:
    for number, line in _decoded(stream):
        if problem_of(line):
            yield BadLine(number, _NOT_UTF8)
        elif line.strip():
            yield _json_text(number, line, column, others)


def _json_text(number: int, line: str, column: str, others: Sequence[str]) -> Line | BadLine:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadLine(number, f"the line is not JSON ({error})")
    if not isinstance(value, dict):
        return BadLine(number, f'the line is not an object; write {{"{column}": "..."}}')
    if column not in value:
        keys = ", ".join(value) or "none"
        return BadLine(number, f'the object has no key "{column}"; its keys: {keys}')
    if problem := problem_of(value[column]):
        return BadLine(number, f'"{column}": {problem}')
    return Line(number, value[column], others={it: value[it] for it in others if it in value})


def _parquet(
    path: Path, stream: BinaryIO, column: str, others: Sequence[str]
) -> Iterator[Line | BadLine]:
    for number, (text, besides) in enumerate(rows_of(path, stream, column, others), start=1):
        if text is None:
            yield BadLine(number, f'"{column}" is null; leave the row out or give it a text')
        elif problem_of(text):
            yield BadLine(number, f'"{column}" is not valid UTF-8; write the file again')
        else:
            yield Line(number, text, others=besides)


def _csv(
    path: Path, stream: BinaryIO, column: str, others: Sequence[str]
) -> Iterator[Line | BadLine]:
    rows = _csv_rows(_decoded(stream))
    _, header = next(rows, (1, []))
    for name in (column, *others):
        if isinstance(header, str) or name not in header:
            has = header if isinstance(header, str) else f"it has: {', '.join(header) or 'nothing'}"
            raise ColumnError(
                f'{path} has no column "{name}" in its first line; {has}',
                "name the column of the texts with --column",
                name,
            )
    place, besides = header.index(column), {name: header.index(name) for name in others}
    for number, row in rows:
        yield _csv_text(number, row, place, besides, len(header))


def _csv_text(
    number: int, row: list[str] | str, place: int, besides: Mapping[str, int], width: int
) -> Line | BadLine:
    if isinstance(row, str):
        return BadLine(number, row)
    if any(problem_of(field) for field in row):
        return BadLine(number, _NOT_UTF8)
    if len(row) != width:
        return BadLine(
            number,
            f"the row has {len(row)} fields, the header has {width}; "
            "put double quotes around a text that has commas",
        )
    return Line(number, row[place], others={name: row[at] for name, at in besides.items()})


def _csv_rows(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[str] | str]]:
    """Rows, or the reason why one cannot be read, each with the number of its first line.

    After a row that cannot be read, such as one with a quote that is never closed, reading goes on
    at the next line, so that the rows behind it are not lost.
    """
    csv.field_size_limit(_RECORD_LIMIT)
    again: deque[tuple[int, str]] = deque()
    while True:
        taken: list[tuple[int, str]] = []
        try:
            row = next(csv.reader(_row_lines(again, lines, taken), strict=True), None)
        except csv.Error as error:
            again.extendleft(reversed(taken[1:]))
            yield taken[0][0], f"the row is not CSV ({error}); double every quote inside quotes"
            continue
        if row is None:
            return
        if row:
            yield taken[0][0], row


def _row_lines(
    again: deque[tuple[int, str]],
    lines: Iterator[tuple[int, str]],
    taken: list[tuple[int, str]],
) -> Iterator[str]:
    """The lines from which one row is read: those of `again` first, then those of `lines`. Each is
    added to `taken`."""
    size = 0
    while size <= _RECORD_LIMIT:
        line = again.popleft() if again else next(lines, None)
        if line is None:
            return
        taken.append(line)
        size += len(line[1])
        yield line[1]


READERS: dict[str, Callable[[Path, BinaryIO, str, Sequence[str]], Iterator[Line | BadLine]]] = {
    ".txt": _txt,
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
