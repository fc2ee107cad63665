"""Texts and their labels, from a file or from Python."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Number
from pathlib import Path

import numpy as np

from trimexport_runtime import InputError
from trimexport_runtime.errors import ColumnError
from trimexport_runtime.files import BadLine, Line, read_file
from trimexport_runtime.inputs import problem_of
from trimexport_runtime.score import LOG_ODDS, SOFTMAX, Score

from .errors import SpecError
from .numerics import Places

FEW = 10
"""Fewer texts than these are too few to calibrate on."""


@dataclass(frozen=True)
class Texts:
    """Texts, and the label of each where the right answers are known.

    `source` is what notes and reports call them, for a file its path; texts that differ in it alone
    are equal.
    """

    texts: tuple[str, ...]
    gold: tuple[str, ...] | None = None
    source: str = field(default="the data", compare=False)

    def places(self, labels: Sequence[str]) -> Places:
        """The place of each text's label among `labels`, int64 `[texts]`.

        Raises:
            SpecError: there is no text, the texts have no labels, or one has none of these.
        """
        check_sample(self, labels)
        if self.gold is None:
            raise SpecError(f"no labels are known of {self.source}; give every text its label")
        place = {label: at for at, label in enumerate(labels)}
        return np.array([place[label] for label in self.gold], np.int64)


@dataclass(frozen=True)
class Columns:
    """Where a file has its texts and their labels, and what it calls the labels: `names` maps a
    name in the file to a label, and names that it lacks are labels themselves."""

    text: str = "text"
    label: str = "label"
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Advice:
    """The next step for a file that lacks something. It depends on whether the user can name the
    columns where the file is given."""

    no_texts: str
    no_labels: str
    all_empty: str
    unknown: str


_BOTH = 'give it the columns "text" and "label"'
_OF_OPTIONAL_LABELS = _Advice(
    no_texts='call it "text"',
    no_labels="",
    all_empty="give every line a label, or leave the column out",
    unknown="",
)
_OF_FIXED_COLUMNS = _Advice(
    no_texts=_BOTH,
    no_labels=_BOTH,
    all_empty="give every line a label",
    unknown="correct it, or leave the line out",
)
_OF_NAMED_COLUMNS = _Advice(
    no_texts="name it with --text-column",
    no_labels="name the column of the labels with --label-column",
    all_empty="give every line a label, or name another column with --label-column",
    unknown="say which it is with --map {name}={first}",
)


class _NoLabelColumn(SpecError):
    """The header of a file has no column of labels."""


def read_texts(
    path: Path, *, labels: bool = True, say: Callable[[str], None] = lambda line: None
) -> Texts:
    """Read a `.txt`, `.csv`, `.jsonl` or `.parquet` with a column `text`. Where the latter three
    have a column `label` too, it gives the right answers: see `labelled_texts` for what a label is.

    Args:
        labels: False passes labels over.
        say: is told that a file that could have labels has none, so nothing is judged by them.

    Raises:
        SpecError: the file or a line of it cannot be read, it has no line, or a line has no label
            in a file that has a column of them.
    """
    advice, columns, gold = _OF_OPTIONAL_LABELS, Columns(), None
    if labels and path.suffix.lower() != ".txt":
        try:
            lines = _lines(path, columns.text, columns.label, advice)
            gold = _written(path, lines, columns.label, advice)
        except _NoLabelColumn:  # known from the header: nothing else was read
            lines = _lines(path, columns.text, None, advice)
        if gold is None:
            say(
                f'{path} has no column "{columns.label}", so accuracy is left out; call the column '
                f'of the right answers "{columns.label}" to have it'
            )
    else:
        lines = _lines(path, None, None, advice)
    return Texts(tuple(map(_text, lines)), gold, str(path))


def labelled_texts(
    data: Path | Texts, labels: Sequence[str], columns: Columns | None = None
) -> Texts:
    """Texts of which each has one of `labels`: those given, or those of a `.jsonl`, `.csv` or
    `.parquet`.

    In a file a label is a string, a number or a truth value. All but strings are taken as Python
    writes them: 1 is the label `1`, 1.0 is `1.0`, true is `True`. Null, NaN and an empty string are
    no label.

    Args:
        labels: the labels of a bundle or a spec.
        columns: what a file calls its columns and labels. None where the user cannot say it, so
            that no message asks for it.

    Raises:
        SpecError: the file or a line of it cannot be read, there is no text, a text has no label or
            one that is none of `labels`, or `columns` maps a name to none of them.
    """
    if isinstance(data, Texts):
        data.places(labels)
        return data
    advice = _OF_FIXED_COLUMNS if columns is None else _OF_NAMED_COLUMNS
    columns = columns or Columns()
    for label in columns.names.values():
        if label not in labels:
            raise SpecError(f"{label!r} is none of the bundle's labels: {', '.join(labels)}")
    if data.suffix.lower() == ".txt":
        raise SpecError(f"{data} has no labels; give a .jsonl, .csv or .parquet")
    lines = _lines(data, columns.text, columns.label, advice)
    written = _written(data, lines, columns.label, advice)
    if written is None:
        raise SpecError(f'{data} has no key "{columns.label}" in any line; {advice.no_labels}')
    gold = tuple(columns.names.get(name, name) for name in written)
    for line, name, label in zip(lines, written, gold, strict=True):
        if label not in labels:
            remedy = advice.unknown.format(name=name, first=next(iter(labels), ""))
            raise SpecError(
                f"{data}, line {line.number}: the label {name!r} is none of {', '.join(labels)}; "
                f"{remedy}"
            )
    return Texts(tuple(map(_text, lines)), gold, str(data))


def _lines(
    path: Path, text_column: str | None, label_column: str | None, advice: _Advice
) -> list[Line]:
    """All lines of a file, each with a text, and with what it has in the column of labels."""
    lines = []
    try:
        for line in read_file(path, text_column, () if label_column is None else (label_column,)):
            if isinstance(line, BadLine):
                raise SpecError(f"{path}, line {line.number}: {line.reason}")
            lines.append(line)
    except ColumnError as error:
        if error.column == label_column != text_column:
            raise _NoLabelColumn(f"{error.fact}; {advice.no_labels}") from None
        raise SpecError(f"{error.fact}; {advice.no_texts}") from None
    except InputError as error:
        raise SpecError(str(error)) from None
    if not lines:
        raise SpecError(f"{path} holds no text; give a file with one text a line at least")
    return lines


def _text(line: Line) -> str:
    """The text of a line of a file of which one column is read."""
    assert isinstance(line.text, str)
    return line.text


def _written(
    path: Path, lines: Sequence[Line], column: str, advice: _Advice
) -> tuple[str, ...] | None:
    """The labels as the file writes them; None if no line has the column."""
    if not any(column in line.others for line in lines):
        return None
    values = [_as_text(path, line, column) for line in lines]
    if not any(values):
        raise SpecError(
            f'the column "{column}" of {path} is empty on every line; {advice.all_empty}'
        )
    for line, value in zip(lines, values, strict=True):
        if not value:
            raise SpecError(
                f"{path}, line {line.number}: no label; give it one, or leave the line out"
            )
    return tuple(values)


def _as_text(path: Path, line: Line, column: str) -> str:
    """A line's label as a string, empty where it has none."""
    value = line.others.get(column)
    if value is None or value != value:  # NaN
        return ""
    if not isinstance(value, (str, Number)):
        raise SpecError(
            f'{path}, line {line.number}: "{column}" is of type {type(value).__name__}; a label is '
            "a string, a number or a truth value, so write it as one"
        )
    if problem := problem_of(str(value)):
        raise SpecError(f'{path}, line {line.number}: "{column}": {problem}')
    return str(value)


def judged(sample: Texts, score: Score) -> Texts:
    """The texts, without right answers where the score has none to be one of: a single label's
    logit, and independent labels, of which a text may have several."""
    if sample.gold is None or score.kind in (SOFTMAX, LOG_ODDS):
        return sample
    return Texts(sample.texts, source=sample.source)


def check_sample(sample: Texts, labels: Sequence[str]) -> None:
    """Refuse texts that a bundle with these labels cannot be judged by.

    Raises:
        SpecError: there is no text, or the right answers are not one for each, all of them labels.
    """
    if not sample.texts:
        raise SpecError("there is no text to compare on; give a file with one text a line")
    if sample.gold is None:
        return
    if len(sample.gold) != len(sample.texts):
        raise SpecError(
            f"there are {len(sample.texts):,} texts and {len(sample.gold):,} right answers; give "
            "each text one"
        )
    strange = sorted(set(sample.gold) - set(labels))
    if strange:
        raise SpecError(
            f"the texts are labelled {', '.join(strange[:5])}, the bundle's labels are "
            f"{', '.join(labels)}; the file's label column must use those"
        )


def poor_calibration(calibration: Texts) -> str | None:
    """Why texts show hardly anything of the activations that others will cause, in a line; None
    where there is no such reason.

    Raises:
        SpecError: there is no text.
    """
    texts = calibration.texts
    if not texts:
        raise SpecError("there is no text to calibrate on; give a file with one text a line")
    empty = sum(not text.strip() for text in texts)
    if len(set(texts)) == 1 and len(texts) > 1:
        reason = f"all {len(texts):,} calibration texts are alike"
    elif empty:
        reason = f"{empty:,} of {len(texts):,} calibration texts are empty"
    elif len(texts) < FEW:
        reason = f"there are few calibration texts, {len(texts):,}"
    else:
        return None
    return f"{reason}; give at least {FEW}, better a hundred, like those to be classified"


def labels_without_texts(sample: Texts, labels: Sequence[str]) -> list[str]:
    """Those of `labels` that no text has."""
    return [label for label in labels if label not in set(sample.gold or ())]


def text_sha256(text: str) -> str:
    """What a bundle records of a text, by which it is recognised among others."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def short(text: str) -> str:
    """A text as a message shows it."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
