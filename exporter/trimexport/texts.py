"""Texts, or rows of texts for a prompt's fields, and their labels, from a file or from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Number
from pathlib import Path

import numpy as np

from trimexport_runtime import InputError
from trimexport_runtime.bundle import Field
from trimexport_runtime.columns import Column, columns_for
from trimexport_runtime.errors import ColumnError
from trimexport_runtime.files import BadLine, Line, read_file
from trimexport_runtime.inputs import Input, problem_of
from trimexport_runtime.score import LOG_ODDS, SOFTMAX, Score

from .errors import SpecError
from .numerics import Places
from .records import ONE_TEXT, as_inputs


@dataclass(frozen=True)
class Texts:
    """Texts, and the label of each where the right answers are known. Where a prompt has several
    fields, each is an `Input` of them; from files and `records.as_inputs` it is a `Record`.

    `source` is what notes and reports call them, for a file its path; texts that differ in it alone
    are equal.
    """

    texts: tuple[Input, ...]
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
    name in the file to a label, and names that it lacks are labels themselves.

    `text` is the column of a prompt's only field, None the one called `text`. `fields` are the
    columns of several by their names, unless they have the same."""

    text: str | None = None
    label: str = "label"
    names: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Advice:
    """The next step for a file that lacks something. It depends on whether the user can name the
    columns where the file is given."""

    no_texts: str
    no_field: str
    no_labels: str
    all_empty: str
    unknown: str


_BOTH = 'give it the columns "text" and "label"'
_OF_OPTIONAL_LABELS = Advice(
    no_texts='call it "text"',
    no_field='call it "{field}"',
    no_labels="",
    all_empty="give every line a label, or leave the column out",
    unknown="",
)
_OF_FIXED_COLUMNS = Advice(
    no_texts=_BOTH,
    no_field='call it "{field}"',
    no_labels=_BOTH,
    all_empty="give every line a label",
    unknown="correct it, or leave the line out",
)
OF_NAMED_COLUMNS = Advice(
    no_texts="name it with --text-column",
    no_field="name it with --columns {field}=COLUMN",
    no_labels="name the column of the labels with --label-column",
    all_empty="give every line a label, or name another column with --label-column",
    unknown="say which it is with --map {name}={first}",
)


class NoLabelColumn(SpecError):
    """The header of a file has no column of labels."""


def read_texts(
    path: Path,
    *,
    fields: Sequence[Field] = ONE_TEXT,
    labels: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Texts:
    """Read a `.txt`, `.csv`, `.jsonl` or `.parquet` with a column `text`, or one for each of
    several fields. Where the latter three have a column `label` too, it gives the right answers:
    see `labelled_texts` for what a label is.

    Args:
        fields: the prompt's.
        labels: False passes labels over.
        say: is told that a file that could have labels has none, so nothing is judged by them.

    Raises:
        SpecError: the file or a line of it cannot be read, it has no line, or a line has no label
            in a file that has a column of them.
    """
    advice, label, gold = _OF_OPTIONAL_LABELS, Columns().label, None
    columns = columns_for(fields)
    if labels and path.suffix.lower() != ".txt":
        try:
            lines = labelled_lines(path, columns, label, advice)
            gold = _written(path, lines, label, advice)
        except NoLabelColumn:  # known from the header: nothing else was read
            lines = labelled_lines(path, columns, None, advice)
        if gold is None:
            say(
                f'{path} has no column "{label}", so accuracy is left out; call the column of the '
                f'right answers "{label}" to have it'
            )
    else:
        lines = labelled_lines(path, columns, None, advice)
    return Texts(as_inputs((line.text for line in lines), fields), gold, str(path))


def labelled_texts(
    data: Path | Texts,
    labels: Sequence[str],
    columns: Columns | None = None,
    fields: Sequence[Field] = ONE_TEXT,
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
        fields: the prompt's.

    Raises:
        InputError: one of the given texts is none of a prompt with several fields.
        SpecError: the file or a line of it cannot be read, there is no text, a text has no label or
            one that is none of `labels`, or `columns` maps a name to none of them.
    """
    if isinstance(data, Texts):
        data.places(labels)
        return inputs_for(data, fields)
    advice = _OF_FIXED_COLUMNS if columns is None else OF_NAMED_COLUMNS
    columns = columns or Columns()
    for label in columns.names.values():
        if label not in labels:
            raise SpecError(f"{label!r} is none of the bundle's labels: {', '.join(labels)}")
    if data.suffix.lower() == ".txt":
        raise SpecError(f"{data} has no labels; give a .jsonl, .csv or .parquet")
    lines = labelled_lines(data, text_columns(columns, fields), columns.label, advice)
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
    return Texts(as_inputs((line.text for line in lines), fields), gold, str(data))


def inputs_for(sample: Texts, fields: Sequence[Field]) -> Texts:
    """The texts as inputs of a prompt's fields: see `records.as_inputs`, and what that raises."""
    inputs = as_inputs(sample.texts, fields)
    return sample if inputs == sample.texts else replace(sample, texts=inputs)


def text_columns(columns: Columns, fields: Sequence[Field]) -> tuple[Column, ...]:
    """The columns of a prompt's fields in a file.

    Raises:
        SpecError: a single column is named for several fields.
        InputError: one is named for a field that there is not.
    """
    if columns.text is not None and len(fields) > 1:
        raise SpecError(
            f"--text-column names one column, and the prompt has several fields: "
            f"{', '.join(field.name for field in fields)}; name theirs with --columns "
            f"{fields[0].name}=COLUMN"
        )
    return columns_for(fields, columns.text, columns.fields)


def labelled_lines(
    path: Path, columns: Sequence[Column], label_column: str | None, advice: Advice
) -> list[Line]:
    """All lines of a file, each with its text or texts, and with what it has in the column of
    labels.

    Raises:
        SpecError: the file or a line of it cannot be read, it has no line, or lacks a column.
    """
    lines = []
    field_of = {column.name: column.field for column in columns}
    try:
        for line in read_file(path, columns, () if label_column is None else (label_column,)):
            if isinstance(line, BadLine):
                raise SpecError(f"{path}, line {line.number}: {line.reason}")
            lines.append(line)
    except ColumnError as error:
        if error.column == label_column and label_column not in field_of:
            raise NoLabelColumn(f"{error.fact}; {advice.no_labels}") from None
        field = field_of.get(error.column, error.column)
        one = advice.no_texts if len(columns) == 1 else advice.no_field.format(field=field)
        raise SpecError(f"{error.fact}; {one}") from None
    except InputError as error:
        raise SpecError(str(error)) from None
    if not lines:
        raise SpecError(f"{path} holds no text; give a file with one text a line at least")
    return lines


def _written(
    path: Path, lines: Sequence[Line], column: str, advice: Advice
) -> tuple[str, ...] | None:
    """The labels as the file writes them; None if no line has the column."""
    if not any(column in line.others for line in lines):
        return None
    values = [label_of(path, line, column) for line in lines]
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


def label_of(path: Path, line: Line, column: str) -> str:
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


def judged(sample: Texts, score: Score, several: bool = False) -> Texts:
    """The texts, without right answers where one label a text does not say them: a single label's
    logit, independent labels, and `several` questions."""
    if sample.gold is None or (score.kind in (SOFTMAX, LOG_ODDS) and not several):
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


def labels_without_texts(sample: Texts, labels: Sequence[str]) -> list[str]:
    """Those of `labels` that no text has."""
    return [label for label in labels if label not in set(sample.gold or ())]
