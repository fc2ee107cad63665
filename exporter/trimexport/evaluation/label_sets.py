"""Texts of which each may have several labels, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trimexport.errors import SpecError
from trimexport.records import ONE_TEXT, as_inputs
from trimexport.texts import OF_NAMED_COLUMNS, Columns, labelled_lines, text_columns
from trimexport_runtime.bundle import Field
from trimexport_runtime.files import Line
from trimexport_runtime.inputs import Input

_ADVICE = replace(OF_NAMED_COLUMNS, no_labels="name it with --label-column")


@dataclass(frozen=True)
class LabelSets:
    """Texts, and the labels of each."""

    texts: tuple[Input, ...]
    labels: tuple[frozenset[str], ...]


def read_label_sets(
    path: Path, labels: Sequence[str], columns: Columns, fields: Sequence[Field] = ONE_TEXT
) -> LabelSets:
    """Read texts with their labels: a list of strings, or one string with commas between them. An
    empty one is of a text without a label.

    Args:
        fields: the prompt's.

    Raises:
        SpecError: the file or a line of it cannot be read, there is no text, no line has the
            column, or a label is none of `labels`.
    """
    lines = labelled_lines(path, text_columns(columns, fields), columns.label, _ADVICE)
    if not any(columns.label in line.others for line in lines):
        raise SpecError(
            f'{path} has no key "{columns.label}" in any line; name the column of the labels with '
            "--label-column"
        )
    sets = tuple(_labels(path, line, labels, columns) for line in lines)
    return LabelSets(as_inputs((line.text for line in lines), fields), sets)


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
