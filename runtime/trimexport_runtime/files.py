"""Texts from files, directories and pipes, one at a time, each with the number of its line.

A line that cannot be read becomes a `BadLine` in its place, and the others are read all the same.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from .columns import Column, Record, advice, as_record, only_column
from .csv_rows import ahead, csv_rows, other_separator
from .encoding import NO_TEXT, UTF8_MARK, check_first_line
from .errors import ColumnError, InputError
from .inputs import problem_of
from .parquet import rows_of, several_columns

_NOT_UTF8 = "the line is not valid UTF-8; save the file as UTF-8"


@dataclass(frozen=True)
class Source:
    """A file of texts. `name` is what results call it: its path within the directory that was
    given, or its own name, with what is not UTF-8 escaped."""

    name: str
    path: Path


@dataclass(frozen=True)
class Line:
    """A text, or those of a prompt's fields by their names, and the number of the file's line (in
    Parquet, row) where it begins, from 1; `file` is the source's name where there are several;
    `others` are the values of other columns that were asked for, by their names."""

    number: int
    text: Record
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
    if not os.path.isdir(path):
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
    path: Path, columns: Sequence[Column] | str | None = None, others: Sequence[str] = ()
) -> Iterator[Line | BadLine]:
    """Read texts from a file, as they are asked for.

    `.txt` has one text a line, blank lines included. `.csv` has a header and the columns, `.jsonl`
    one object a line with the columns' keys; in both blank lines are skipped. These are UTF-8, with
    or without a byte order mark. `.parquet` has columns of strings, and needs pyarrow.

    Args:
        columns: those of the texts, as `columns_for` gives them for a prompt; or the name of the
            only one; None is `text`.
        others: columns whose values, of any type, are read besides; an object of `.jsonl` may lack
            them.

    Raises:
        InputError: another extension, no such file, another encoding, line end or separator, a
            header without one of the columns or with two of its name, or for a `.txt` file a column
            or several fields.
    """
    known = ", ".join(READERS)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f'{path} has the extension "{path.suffix}"; texts are read from {known}: '
            "rename or convert the file"
        )
    if columns is None or isinstance(columns, str):
        columns = only_column(columns) if columns else only_column()
    asked = tuple(columns)
    if reader is _txt:
        _check_text_lines(path, asked, others)
    return _opened(path, lambda stream: reader(path, stream, asked, others))


def _check_text_lines(path: Path, columns: Sequence[Column], others: Sequence[str]) -> None:
    """Refuse a `.txt` of which more is asked than a text a line."""
    needed = [column for column in columns if column.needed]
    if len(needed) > 1:
        raise InputError(
            f"{path} has one text a line, and the bundle's prompt takes several: "
            f"{', '.join(column.field for column in needed)}; give them as columns of a .csv, "
            ".jsonl or .parquet"
        )
    named = [column.name for column in needed if column.name not in ("text", column.field)]
    if named := [*named, *others]:
        raise InputError(f"{path} has no columns, so there is no {named[0]!r} in it; drop --column")


def read_lines(
    stream: Iterable[bytes],
    name: str = "standard input",
    columns: Sequence[Column] = only_column(),
) -> Iterator[Line | BadLine]:
    """Read one text a line from a binary stream, which messages call `name`, as they are asked for.

    Args:
        columns: of which one is needed, whose field the texts are.

    Raises:
        InputError: another encoding or line end.
    """
    (field,) = (column.field for column in columns if column.needed)
    for number, text in _decoded(stream, name):
        if problem := _undecodable(text):
            yield BadLine(number, problem)
        else:
            text = text.removesuffix("\n").removesuffix("\r")
            yield Line(number, as_record(columns, {field: text}))


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


def _decoded(stream: Iterable[bytes], name: object) -> Iterator[tuple[int, str]]:
    """Lines with their numbers and ends; bytes that are not UTF-8 become lone surrogates.

    Raises:
        InputError: see `check_first_line`.
    """
    for number, raw in enumerate(stream, start=1):
        if number == 1:
            check_first_line(raw, str(name))
            raw = raw.removeprefix(UTF8_MARK)
        yield number, raw.decode("utf-8", errors="surrogateescape")


def _undecodable(text: str) -> str | None:
    """Why a line is no text, or None where it is one."""
    if problem_of(text):
        return _NOT_UTF8
    return NO_TEXT if "\0" in text else None


def _txt(
    path: Path, stream: BinaryIO, columns: Sequence[Column], others: Sequence[str]
) -> Iterator[Line | BadLine]:
    return read_lines(stream, str(path), columns)


def _jsonl(
    path: Path, stream: BinaryIO, columns: Sequence[Column], others: Sequence[str]
) -> Iterator[Line | BadLine]:
    for number, line in _decoded(stream, path):
        if problem := _undecodable(line):
            yield BadLine(number, problem)
        elif line.strip():
            yield _json_record(number, line, columns, others)


def _json_record(
    number: int, line: str, columns: Sequence[Column], others: Sequence[str]
) -> Line | BadLine:
    twice: set[str] = set()
    try:
        value = json.loads(line, object_pairs_hook=partial(_object, twice=twice))
    except (ValueError, RecursionError) as error:
        return BadLine(number, f"the line is not JSON ({error})")
    if not isinstance(value, dict):
        example = ", ".join(f'"{column.name}": "..."' for column in columns if column.needed)
        return BadLine(number, f"the line is not an object; write {{{example}}}")
    for column in columns:
        if column.needed and column.name not in value:
            keys = ", ".join(value) or "none"
            return BadLine(number, f'the object has no key "{column.name}"; its keys: {keys}')
    if again := twice.intersection((*(column.name for column in columns), *others)):
        return BadLine(number, f'the object has the key "{min(again)}" twice; leave one out')
    given = _given(columns, value)
    for column in given:
        if problem := problem_of(value[column.name]):
            return BadLine(number, f'"{column.name}": {problem}')
    texts = {column.field: value[column.name] for column in given}
    return Line(
        number, as_record(columns, texts), others={it: value[it] for it in others if it in value}
    )


def _given(columns: Sequence[Column], row: Mapping[str, object]) -> list[Column]:
    """The columns of which a row has a text, or ought to: for a field with a default, null is
    none."""
    return [column for column in columns if column.needed or row.get(column.name) is not None]


def _object(pairs: list[tuple[str, object]], twice: set[str]) -> dict[str, object]:
    """A JSON object; the keys that it has more than once are added to `twice`."""
    value = dict(pairs)
    if len(value) < len(pairs):
        times = Counter(key for key, _ in pairs)
        twice.update(key for key, count in times.items() if count > 1)
    return value


def _parquet(
    path: Path, stream: BinaryIO, columns: Sequence[Column], others: Sequence[str]
) -> Iterator[Line | BadLine]:
    for number, (row, besides) in enumerate(rows_of(path, stream, columns, others), start=1):
        given = _given(columns, row)
        reasons = (_no_string(column.name, row[column.name]) for column in given)
        if reason := next(filter(None, reasons), None):
            yield BadLine(number, reason)
        else:
            texts = {column.field: row[column.name] or "" for column in given}
            yield Line(number, as_record(columns, texts), others=besides)


def _no_string(name: str, text: str | None) -> str | None:
    """Why a value of a Parquet's column is no text, or None where it is one."""
    if text is None:
        return f'"{name}" is null; leave the row out or give it a text'
    return f'"{name}" is not valid UTF-8; write the file again' if problem_of(text) else None


def _csv(
    path: Path, stream: BinaryIO, columns: Sequence[Column], others: Sequence[str]
) -> Iterator[Line | BadLine]:
    lines = _decoded(stream, path)
    first = ahead(lines)
    rows = csv_rows(chain(first, lines))
    _, header = next(rows, (1, []))
    there = [column for column in columns if column.needed or column.name in header]
    for name in (*(column.name for column in there), *others):
        _check_header(path, header, name, [line for _, line in first], advice(columns, name))
    assert not isinstance(header, str)
    places = {column.field: header.index(column.name) for column in there}
    besides = {name: header.index(name) for name in others}
    for number, row in rows:
        if reason := _no_row(row, len(header)):
            yield BadLine(number, reason)
        else:
            texts = {field: row[at] for field, at in places.items()}
            values = {name: row[at] for name, at in besides.items()}
            yield Line(number, as_record(columns, texts), others=values)


def _check_header(
    path: Path, header: list[str] | str, name: str, first: Sequence[str], remedy: str
) -> None:
    """Refuse a CSV whose header does not have the column, whole and once; `first` are its first
    lines."""
    has_it = not isinstance(header, str) and name in header
    if (not has_it or len(header) == 1) and (separator := other_separator(first, name)):
        raise InputError(
            f"{path} has {separator} between its fields, a .csv has commas; write it again with "
            "commas, or as .jsonl"
        )
    if not has_it:
        has = header if isinstance(header, str) else f"it has: {', '.join(header) or 'nothing'}"
        raise ColumnError(
            f'{path} has no column "{name}" in its first line; {has}',
            remedy,
            name,
        )
    if header.count(name) > 1:
        raise InputError(several_columns(path, name))


def _no_row(row: list[str] | str, width: int) -> str | None:
    """Why a row of CSV cannot be read, or None where it can."""
    if isinstance(row, str):
        return row
    if problem := next(filter(None, map(_undecodable, row)), None):
        return problem
    if len(row) != width:
        return (
            f"the row has {len(row)} fields, the header has {width}; "
            "put double quotes around a text that has commas"
        )
    return None


READERS: dict[
    str, Callable[[Path, BinaryIO, Sequence[Column], Sequence[str]], Iterator[Line | BadLine]]
] = {
    ".txt": _txt,
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
