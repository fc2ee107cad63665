"""Texts of which each may have several labels, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimexport.errors import SpecError
from trimexport.texts import Columns
from trimexport_runtime import InputError
from trimexport_runtime.errors import ColumnError
from trimexport_runtime.files import BadLine, Line, read_file


@dataclass(frozen=True)
class LabelSets:
    """Texts, and the labels of each."""

    texts: tuple[str, ...]
    labels: tuple[frozenset[str], ...]


def read_label_sets(path: Path, labels: Sequence[str], columns: Columns) -> LabelSets:
    """Read texts with their labels: a list of strings, or one string with commas between them. An
    empty one is of a text without a label.

    Raises:
        SpecError: the file or a line of it cannot be read, there is no text, no line has the
            column, or a label is none of `labels`.
    """
    texts, sets, given = [], [], False
    try:
        for line in read_file(path, columns.text, (columns.label,)):
            if isinstance(line, BadLine):
                raise SpecError(f"{path}, line {line.number}: {line.reason}")
            given = given or columns.label in line.others
            texts.append(line.text)
            sets.append(_labels(path, line, labels, columns))
    except ColumnError as error:
        option = "--label-column" if error.column == columns.label else "--text-column"
        raise SpecError(f"{error.fact}; name it with {option}") from None
    except InputError as error:
        raise SpecError(str(error)) from None
    if not texts:
        raise SpecError(f"{path} holds no text; give a file with one text a line at least")
    if not given:
        raise SpecError(
            f'{path} has no key "{columns.label}" in any line; name the column of the labels with '
            "--label-column"
        )
    return LabelSets(tuple(texts), tuple(sets))


def _labels(path: Path, line: Line, labels: Sequence[str], columns: Columns) -> frozenset[str]:
    value = line.others.get(columns.label)
    names = value.split(",") if isinstance(value, str) else [] if value is None else value
    if not isinstance(names, list | tuple) or not all(isinstance(it, str) for it in names):
        raise SpecError(
            f'{path}, line {line.number}: "{columns.label}" is of type {type(value).__name__}; '
            "independent labels are a list of strings, or one string with commas between them"
        )
    stripped = [name.strip() for name in names if name.strip()]
    found = frozenset(columns.names.get(name, name) for name in stripped)
    if strange := sorted(found - set(labels)):
        raise SpecError(
            f"{path}, line {line.number}: the label {strange[0]!r} is none of {', '.join(labels)}; "
            f"say which it is with --map {strange[0]}={labels[0]}"
        )
    return found
