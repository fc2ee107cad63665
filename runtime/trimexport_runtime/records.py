"""Texts from arguments, files or standard input, and their answers on standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import click

from .backbone import manifest_of_either
from .batching import windows
from .bundle import Field
from .choice import choose
from .classifier import Classifier
from .columns import Column, as_record, columns_for
from .errors import InputError
from .files import BadLine, Line, read_file, read_lines, sources
from .inputs import characters, required
from .prediction import Prediction
from .progress import Progress
from .render import Answer, answer_json, answer_line, bad_json

_LARGE = 1 << 28  # bytes; the loading of a variant with more is announced


@dataclass(frozen=True)
class Given:
    """What the command line gives: texts or pairs of texts as arguments, or a file or a directory
    of them, with the names of its columns as in `columns_for`."""

    texts: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    file: Path | None = None
    column: str | None = None
    columns: Mapping[str, str] | None = None


def check_given(given: Given) -> None:
    """Refuse options that do not go together.

    Raises:
        UsageError: no texts are given, or more than one of texts, pairs and a file.
    """
    if given.column is not None and given.columns:
        raise click.UsageError("Give --column or --columns, not both.")
    if given.file is None:
        for name in ("column", "columns"):
            if getattr(given, name):
                raise click.UsageError(f"--{name} names what --file has; give --file too.")
    if sum(map(bool, (given.texts, given.pairs, given.file is not None))) > 1:
        raise click.UsageError("Give texts, --pair or --file, not several of them.")
    if "-" in given.texts and len(given.texts) > 1:
        raise click.UsageError("- reads texts from stdin and must stand alone.")
    if not given.texts and not given.pairs and given.file is None:
        raise click.UsageError(
            "No texts: give TEXT arguments, --pair, --file FILE, or - to read stdin."
        )


def records(given: Given, fields: Sequence[Field]) -> Iterator[Line | BadLine]:
    """The records that the command line gives of a prompt with these fields.

    Raises:
        InputError: no such files, standard input is closed, or they cannot give what the prompt
            takes.
    """
    if given.file is not None:
        return _files(given.file, columns_for(fields, given.column, given.columns))
    if given.texts != ("-",):
        return iter(command_line(given, fields))
    _check_number(given, required(fields))
    if sys.stdin is None:
        raise InputError("standard input is closed; give texts as arguments or with --file")
    return _stdin(sys.stdin.buffer, columns_for(fields))


def command_line(given: Given, fields: Sequence[Field]) -> list[Line]:
    """The records that texts or pairs of texts are for a prompt with these fields.

    Raises:
        InputError: the prompt takes another number of texts together.
    """
    names, columns = required(fields), columns_for(fields)
    _check_number(given, names)
    rows: Sequence[Sequence[str]] = given.pairs or [(text,) for text in given.texts]
    texts = (dict(zip(names, row, strict=True)) for row in rows)
    return [Line(number, as_record(columns, it)) for number, it in enumerate(texts, start=1)]


def _check_number(given: Given, names: Sequence[str]) -> None:
    """Refuse texts of which a prompt takes another number together, namely one for each name."""
    if len(names) == (2 if given.pairs else 1):
        return
    listed = ", ".join(names)
    if len(names) == 1:
        raise InputError(
            f"--pair gives two texts, and the bundle's prompt takes one ({listed}); drop --pair"
        )
    remedy = "give --pair " + " ".join(name.upper() for name in names)
    if len(names) > 2 or given.texts == ("-",):
        remedy = "give a --file with columns or keys of these names"
    what = "two texts are given" if given.pairs else "one text is given"
    raise InputError(
        f"{what}, and the bundle's prompt takes {len(names)} together ({listed}); {remedy}"
    )


def _files(path: Path, columns: Sequence[Column]) -> Iterator[Line | BadLine]:
    """The lines of a file, or those of a directory's files, each with the file's name."""
    files = sources(path)
    if not os.path.isdir(path):
        return read_file(path, columns)
    return (
        replace(line, file=source.name)
        for source in files
        for line in read_file(source.path, columns)
    )


def _stdin(stream: BinaryIO, columns: Sequence[Column]) -> Iterator[Line | BadLine]:
    try:
        yield from read_lines(stream, columns=columns)
    except OSError as error:
        raise InputError(
            f"standard input cannot be read ({error.strerror or error}); give texts as arguments "
            "or with --file"
        ) from None


def load(
    bundle: Path, task: Path | None, variant: str | None, backend: str, threads: int | None
) -> Classifier:
    """`Classifier.load`, which is announced where the variant is large."""
    with Progress("loading the model") as progress:
        if choose(manifest_of_either(bundle, task), variant, backend).bytes > _LARGE:
            progress.show()
        return Classifier.load(bundle, variant=variant, backend=backend, threads=threads, task=task)


def answers(classifier: Classifier, records: Iterator[Line | BadLine]) -> Iterator[Answer]:
    """Each record's answer, in the order of the records."""
    index = 0
    for window in windows(records, _characters):
        texts = (record.text for record in window if isinstance(record, Line))
        results = classifier.classify_each(texts)
        for record in window:
            yield _answer(index, record, results)
            index += 1


def _characters(record: Line | BadLine) -> int:
    return characters(record.text) if isinstance(record, Line) else 0


def _answer(
    index: int, record: Line | BadLine, results: Iterator[Prediction | InputError]
) -> Answer:
    if isinstance(record, BadLine):
        return Answer(index, record.number, "", record, record.file)
    result = next(results)
    if isinstance(result, InputError):
        bad = BadLine(record.number, str(result))
        return Answer(index, record.number, record.text, bad, record.file)
    return Answer(index, record.number, record.text, result, record.file)


def show(answer: Answer, classifier: Classifier, *, as_json: bool, numbered: bool) -> None:
    """Print an answer; without JSON, what is wrong with a record goes to standard error.

    `numbered` says that records have lines in a file, by which they are named.
    """
    if isinstance(answer.result, BadLine):
        if as_json:
            click.echo(bad_json(answer, answer.result, numbered=numbered))
        else:
            what = "line" if numbered else "text"
            where = "" if answer.file is None else f"{answer.file}, "
            click.echo(f"{where}{what} {answer.result.number}: {answer.result.reason}", err=True)
    elif as_json:
        click.echo(answer_json(answer, answer.result, classifier, numbered=numbered))
    else:
        click.echo(answer_line(answer, answer.result, classifier.manifest.score))
