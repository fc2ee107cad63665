"""Texts with labels of several questions, a column for each; a text may lack the labels of some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trimexport.errors import SpecError
from trimexport.records import as_inputs
from trimexport.texts import (
    OF_NAMED_COLUMNS,
    Columns,
    NoLabelColumn,
    Texts,
    label_of,
    labelled_lines,
    text_columns,
)
from trimexport_runtime import Manifest
from trimexport_runtime.bundle import Question
from trimexport_runtime.files import Line
from trimexport_runtime.inputs import Input

_ADVICE = replace(OF_NAMED_COLUMNS, no_labels="")


@dataclass(frozen=True)
class QuestionLabels:
    """Texts, each with a label of one question at least. `gold` are the labels of the questions
    that any text has one of, by the questions' names; None where a text has none. `source` is what
    messages call the texts."""

    texts: tuple[Input, ...]
    gold: Mapping[str, tuple[str | None, ...]]
    source: str

    def places(self, question: str) -> list[int]:
        """The places of the texts that have a label of a question."""
        return [at for at, label in enumerate(self.gold[question]) if label is not None]

    def of(self, question: str) -> Texts:
        """Those texts, with that label."""
        gold, places = self.gold[question], self.places(question)
        labels = tuple(label for label in gold if label is not None)
        return Texts(tuple(self.texts[at] for at in places), labels, self.source)


def read_question_labels(
    path: Path, manifest: Manifest, columns: Columns | None = None
) -> QuestionLabels:
    """Read texts whose labels stand in columns, or keys, that are called as the questions are. Null
    and an empty string are no label.

    Args:
        manifest: of a bundle with several questions.
        columns: where the file has its texts, and what it calls labels; None takes `text`.

    Raises:
        SpecError: the file or a line of it cannot be read, it has no label of any question, or one
            that is none of its question's.
    """
    columns = columns or Columns()
    names = [question.name for question in manifest.questions]
    _check_columns(path, columns, names)
    found: dict[str, tuple[str | None, ...]] = {}
    lines: Sequence[Line] = ()
    for question in manifest.questions:
        try:
            lines_of = labelled_lines(
                path, text_columns(columns, manifest.prompt.places), question.name, _ADVICE
            )
        except NoLabelColumn:
            continue
        lines = lines_of
        gold = tuple(_label(path, line, question, columns.names) for line in lines)
        if any(label is not None for label in gold):
            found[question.name] = gold
    if not found:
        raise SpecError(
            f"{path} has no label of any question; give it a column, or a key, for each, called as "
            f"the question is: {', '.join(names)}"
        )
    texts = as_inputs((line.text for line in lines), manifest.prompt.places)
    kept = [at for at in range(len(texts)) if any(own[at] is not None for own in found.values())]
    return QuestionLabels(
        tuple(texts[at] for at in kept),
        {name: tuple(own[at] for at in kept) for name, own in found.items()},
        str(path),
    )


def _check_columns(path: Path, columns: Columns, names: Sequence[str]) -> None:
    """Refuse what is said of a single question's labels."""
    if path.suffix.lower() == ".txt":
        raise SpecError(f"{path} has no labels; give a .jsonl, .csv or .parquet")
    if columns.label != Columns().label:
        raise SpecError(
            f"--label-column names the labels of one question, and the bundle asks several; call "
            f"the columns as the questions are: {', '.join(names)}"
        )


def _label(path: Path, line: Line, question: Question, names: Mapping[str, str]) -> str | None:
    """The line's label of a question, None where it has none."""
    written = label_of(path, line, question.name)
    if not written:
        return None
    label, known = names.get(written, written), [own.name for own in question.labels]
    if label not in known:
        raise SpecError(
            f"{path}, line {line.number}: {written!r} is no label of the question "
            f"{question.name!r}, whose labels are {', '.join(known)}; say which it is with --map "
            f"{written}={known[0]}"
        )
    return label
