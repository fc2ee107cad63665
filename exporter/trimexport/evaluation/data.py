"""Texts with their right answers, from a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimexport.errors import SpecError
from trimexport.texts import read_lines
from trimexport_runtime import InputError
from trimexport_runtime.errors import ColumnError
from trimexport_runtime.files import BadLine, read_file
from trimexport_runtime.parquet import pyarrow


@dataclass(frozen=True)
class Labelled:
    """Texts, and the place of each one's right answer among the labels, int64 `[texts]`."""

    texts: tuple[str, ...]
    gold: npt.NDArray[np.int64]

    @property
    def repeated(self) -> int:
        """How many texts stand there before."""
        return len(self.texts) - len(set(self.texts))


def read_examples(path: Path, labels: Sequence[str]) -> Labelled:
    """Read a `.jsonl`, `.csv` or `.parquet` with columns `text` and `label`.

    Raises:
        SpecError: the file or a line of it cannot be read, it has no line, or a label that is none
            of `labels`.
    """
    return read_labelled(path, labels, "text", "label", {}, fixed=True)


def read_labelled(
    path: Path,
    labels: Sequence[str],
    text_column: str,
    label_column: str,
    names: Mapping[str, str],
    *,
    fixed: bool = False,
) -> Labelled:
    """Read a `.jsonl`, `.csv` or `.parquet`.

    Args:
        labels: the bundle's.
        names: what stands for which label in the file, where they are not called the same.
        fixed: neither columns nor names can be given where it is read, so no message says so.

    Raises:
        SpecError: the file or a line of it cannot be read, it has no line, or a label that is none
            of the bundle's.
    """
    for name in names.values():
        if name not in labels:
            raise SpecError(f"{name!r} is none of the bundle's labels: {', '.join(labels)}")
    if path.suffix.lower() == ".txt":
        raise SpecError(f"{path} has no labels; give a .jsonl, .csv or .parquet")
    columns = 'give it the columns "text" and "label"'
    lines = read_lines(path, text_column, columns if fixed else "name it with --text-column")
    advice = columns if fixed else "name the column of the labels with --label-column"
    found = _labels(path, label_column, advice)
    places = [_place(path, it.number, found.get(it.number), labels, names, fixed) for it in lines]
    return Labelled(tuple(line.text for line in lines), np.array(places, np.int64))


def _labels(path: Path, column: str, advice: str) -> dict[int, str]:
    """The labels by their lines, as they are written; numbers too."""
    try:
        return dict(_written(path, column))
    except ColumnError as error:
        raise SpecError(f"{error.fact}; {advice}") from None
    except InputError as error:
        raise SpecError(str(error)) from None


def _written(path: Path, column: str) -> Iterator[tuple[int, str]]:
    kind = path.suffix.lower()
    if kind == ".parquet":
        table = pyarrow().parquet.read_table(path)
        if column not in table.column_names:
            has = ", ".join(table.column_names)
            raise SpecError(f'{path} has no column "{column}"; it has: {has}')
        values: list[Any] = table.column(column).to_pylist()
        yield from ((at, str(value)) for at, value in enumerate(values, 1) if value is not None)
    elif kind == ".jsonl":
        with path.open(encoding="utf-8-sig", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                value = json.loads(line).get(column) if line.strip() else None
                if value is not None:
                    yield number, str(value)
    else:
        for found in read_file(path, column):
            if not isinstance(found, BadLine):
                yield found.number, found.text


def _place(
    path: Path,
    line: int,
    written: str | None,
    labels: Sequence[str],
    names: Mapping[str, str],
    fixed: bool,
) -> int:
    if written is None:
        column = "give it one" if fixed else "name its column with --label-column"
        raise SpecError(f"{path}, line {line}: no label; {column}, or leave the line out")
    name = names.get(written, written)
    if name not in labels and fixed:
        raise SpecError(
            f"{path}, line {line}: the label {written!r} is none of {', '.join(labels)}; correct "
            "it, or leave the line out"
        )
    if name not in labels:
        raise SpecError(
            f"{path}, line {line}: the label {written!r} is none of the bundle's: "
            f"{', '.join(labels)}; say which it is with --map {written}={labels[0]}"
        )
    return labels.index(name)


def missing(gold: npt.NDArray[np.int64], labels: Sequence[str]) -> list[str]:
    """The labels that no text has."""
    count = Counter(gold.tolist())
    return [label for place, label in enumerate(labels) if not count[place]]
