"""Texts to compare on, from a file, with their right answers where the file has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimexport_runtime import InputError
from trimexport_runtime.errors import ColumnError
from trimexport_runtime.files import BadLine, Line, read_file

from .errors import SpecError

GOLD = "label"


def read_texts(path: Path) -> Texts:
    """Read a `.txt`, `.csv` or `.jsonl`; of the latter two a column `label` gives right answers.

    Raises:
        SpecError: the file or a line of it cannot be read, it has no line, or only some lines
            have a label.
    """
    return Texts(texts=tuple(line.text for line in read_lines(path)), gold=_gold(path))


def read_lines(path: Path, column: str | None = None, advice: str = 'call it "text"') -> list[Line]:
    """The texts of a file with their lines, every one of which can be read. `advice` is what to do
    where the file has no such column.

    Raises:
        SpecError: the file or a line of it cannot be read, or it has no line.
    """
    lines = []
    try:
        for line in read_file(path, column):
            if isinstance(line, BadLine):
                raise SpecError(f"{path}, line {line.number}: {line.reason}")
            lines.append(line)
    except ColumnError as error:
        raise SpecError(f"{error.fact}; {advice}") from None
    except InputError as error:
        raise SpecError(str(error)) from None
    if not lines:
        raise SpecError(f"{path} holds no text; give a file with one text a line at least")
    return lines


def _gold(path: Path) -> tuple[str, ...] | None:
    """The labels, or None where the file has no such column."""
    if path.suffix.lower() == ".txt":
        return None
    try:
        lines = list(read_file(path, GOLD))
    except InputError:
        return None
    bad = [line for line in lines if isinstance(line, BadLine)]
    if len(bad) == len(lines) and not _has_gold(path):
        return None
    if bad:
        raise SpecError(
            f"{path}, line {bad[0].number}: {bad[0].reason}; give every line a {GOLD!r} or none"
        )
    return tuple(line.text for line in lines if not isinstance(line, BadLine))


def _has_gold(path: Path) -> bool:
    """Whether a file of JSON lines, all of them objects, has the key at all."""
    lines = path.read_bytes().decode("utf-8-sig").split("\n")  # other line breaks are characters
    return any(GOLD in json.loads(line) for line in lines if line.strip())


@dataclass(frozen=True)
class Texts:
    """Texts to compare on, and the right answers where they are known."""

    texts: tuple[str, ...]
    gold: tuple[str, ...] | None = None


def check_sample(sample: Texts, labels: Sequence[str]) -> None:
    """Raise SpecError unless there are texts and their right answers are among the labels."""
    if not sample.texts:
        raise SpecError("there is no text to compare on; give a file with one text a line")
    strange = sorted(set(sample.gold or ()) - set(labels))
    if strange:
        raise SpecError(
            f"the texts are labelled {', '.join(strange[:5])}, the bundle's labels are "
            f"{', '.join(labels)}; the file's label column must use those"
        )


def short(text: str) -> str:
    """A text as a message shows it."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
