"""The parts that a job's input is cut into, and the rows and tally that one gives.

Where a part begins and ends depends on the input alone, so that a job that goes on after a kill,
or on other machines, cuts the same parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trimexport_runtime.batching import windows
from trimexport_runtime.classifier import Classifier
from trimexport_runtime.columns import Column, Record
from trimexport_runtime.errors import InputError
from trimexport_runtime.files import BadLine, Line, Source, read_file
from trimexport_runtime.inputs import characters
from trimexport_runtime.prediction import Prediction

PART_RECORDS = 512
PART_CHARACTERS = 1 << 20
"""A part ends with the record that brings it to so many records, or so many characters."""

LISTED = 10  # records without an answer that a tally names; the output has them all


@dataclass(frozen=True)
class Part:
    """Records of one file. `place` is the file's in the input and `number` the part's in the file,
    both from 0."""

    file: str
    place: int
    number: int
    records: Sequence[Line | BadLine]

    @property
    def name(self) -> str:
        """The part's name; `in_order` puts such names in the order of the input."""
        return f"{self.place:06d}-{self.number:09d}"


@dataclass(frozen=True)
class Row:
    """A record of the input with its answer, or with the error that stands in its place."""

    file: str
    line: int
    text: Record | None
    prediction: Prediction | None
    error: str | None


@dataclass(frozen=True)
class Tally:
    """How many records there are, how many of them have no answer, and how many texts were cut; and
    the first `LISTED` records without an answer, each in a line."""

    records: int = 0
    bad: int = 0
    truncated: int = 0
    listed: tuple[str, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.records + other.records,
            self.bad + other.bad,
            self.truncated + other.truncated,
            (self.listed + other.listed)[:LISTED],
        )


def in_order(names: Iterable[str]) -> list[str]:
    """Names of parts in the order of the parts in the input. As strings they have another one from
    the millionth file on."""
    return sorted(names, key=lambda name: tuple(map(int, name.split("-"))))


def parts_of(files: Sequence[Source], columns: Sequence[Column]) -> Iterator[Part]:
    """The parts of files, in order, as they are asked for.

    Raises:
        InputError: a file cannot be read (see `files.read_file`).
    """
    for place, source in enumerate(files):
        yield from parts_in(source, place, columns)


def parts_in(source: Source, place: int, columns: Sequence[Column]) -> Iterator[Part]:
    """The parts of one file, whose place in the input is `place`: see `parts_of`."""
    records = read_file(source.path, columns)
    cut = windows(records, _characters, PART_RECORDS, PART_CHARACTERS)
    for number, window in enumerate(cut):
        yield Part(source.name, place, number, window)


def score(classifier: Classifier, part: Part) -> list[Row]:
    """A row for each record of a part, in their order."""
    texts = (record.text for record in part.records if isinstance(record, Line))
    answers = classifier.classify_each(texts)
    return [_row(part.file, record, answers) for record in part.records]


def tally(rows: Sequence[Row]) -> Tally:
    """The tally of rows."""
    bad = [row for row in rows if row.error is not None]
    cut = sum(row.prediction is not None and row.prediction.truncated for row in rows)
    named = tuple(f"{row.file}, line {row.line}: {row.error}" for row in bad[:LISTED])
    return Tally(len(rows), len(bad), cut, named)


def _row(file: str, record: Line | BadLine, answers: Iterator[Prediction | InputError]) -> Row:
    if isinstance(record, BadLine):
        reason = record.reason.encode(errors="backslashreplace").decode()
        return Row(file, record.number, None, None, reason)
    answer = next(answers)
    if isinstance(answer, InputError):
        return Row(file, record.number, record.text, None, str(answer))
    return Row(file, record.number, record.text, answer, None)


def _characters(record: Line | BadLine) -> int:
    return characters(record.text) if isinstance(record, Line) else 0
