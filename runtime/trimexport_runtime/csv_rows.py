"""Rows of CSV, of which one that is damaged costs no other."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from .columns import several_columns
from .errors import ColumnError, InputError

_RECORD_LIMIT = 1 << 24  # characters of one CSV row, so that an unclosed quote is noticed
_LOOK = 12  # lines by which a separator is recognised
_OTHERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def csv_rows(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[str] | str]]:
    """Rows, or the reason why one cannot be read, each with the number of its first line.

    After a row that cannot be read, such as one with a quote that is never closed, reading goes on
    at the next line, so that the rows behind it are not lost.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _RECORD_LIMIT))
    again: deque[tuple[int, str]] = deque()
    while True:
        taken: list[tuple[int, str]] = []
        try:
            row = next(csv.reader(_row_lines(again, lines, taken), strict=True), None)
        except csv.Error as error:
            again.extendleft(reversed(taken[1:]))
            yield taken[0][0], _reason(error)
            continue
        if row is None:
            return
        if row:
            yield taken[0][0], row


def _reason(error: csv.Error) -> str:
    if "new-line" in str(error):
        return (
            "the row is not CSV (a carriage return stands alone in it); end lines with line feeds, "
            "or put double quotes around the text"
        )
    return f"the row is not CSV ({error}); double every quote inside quotes"


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


def ahead(lines: Iterator[tuple[int, str]]) -> list[tuple[int, str]]:
    """The first lines, by which `other_separator` goes. They are taken from `lines`."""
    return [line for _, line in zip(range(_LOOK), lines, strict=False)]


def check_header(
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


def other_separator(first: Sequence[str], column: str) -> str | None:
    """What stands between the fields where that is no comma, in words; None where it seems to be
    one.

    It is what makes a field named `column` of the header, or what all rows of `first` have, and
    equally often.

    Args:
        first: the first lines, as `ahead` takes them.
    """
    for character, words in _OTHERS.items():
        try:
            rows = [row for row in csv.reader(first, delimiter=character) if row]
        except csv.Error:
            continue
        whole = rows[:-1] if len(first) == _LOOK else rows  # the last may go on behind them
        names, widths = (whole or [[]])[0], {len(row) for row in whole}
        if len(names) > 1 and (len(widths) == 1 or column in names):
            return words
    return None
