"""Texts from arguments, files or standard input, and their answers on standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import click

from .batching import windows
from .bundle import read_manifest
from .choice import choose
from .classifier import Classifier
from .errors import InputError
from .files import BadLine, Line, read_file, read_lines, sources
from .prediction import Prediction
from .progress import Progress
from .render import Answer, answer_json, answer_line, bad_json

_LARGE = 1 << 28  # bytes; the loading of a variant with more is announced


def records(
    texts: tuple[str, ...], file: Path | None, column: str | None
) -> Iterator[Line | BadLine]:
    """The texts that the command line gives: as arguments, in files, or on standard input.

    Raises:
        UsageError: none are given, or more than one of these.
        InputError: no such files, or standard input is closed.
    """
    if file is None and column is not None:
        raise click.UsageError("--column names a column of --file; give --file too.")
    if file is not None:
        if texts:
            raise click.UsageError("Give texts or --file, not both.")
        return _files(file, column)
    if not texts:
        raise click.UsageError("No texts: give TEXT arguments, --file FILE, or - to read stdin.")
    if "-" in texts:
        if len(texts) > 1:
            raise click.UsageError("- reads texts from stdin and must stand alone.")
        if sys.stdin is None:
            raise InputError("standard input is closed; give texts as arguments or with --file")
        return _stdin(sys.stdin.buffer)
    return (Line(number, text) for number, text in enumerate(texts, start=1))


def _files(path: Path, column: str | None) -> Iterator[Line | BadLine]:
    """The lines of a file, or those of a directory's files, each with the file's name."""
    files = sources(path)
    if not os.path.isdir(path):
        return read_file(path, column)
    return (
        replace(line, file=source.name)
        for source in files
        for line in read_file(source.path, column)
    )


def _stdin(stream: BinaryIO) -> Iterator[Line | BadLine]:
    try:
        yield from read_lines(stream)
    except OSError as error:
        raise InputError(
            f"standard input cannot be read ({error.strerror or error}); give texts as arguments "
            "or with --file"
        ) from None


def load(bundle: Path, variant: str | None, backend: str, threads: int | None) -> Classifier:
    """`Classifier.load`, which is announced where the variant is large."""
    with Progress("loading the model") as progress:
        if choose(read_manifest(bundle), variant, backend).bytes > _LARGE:
            progress.show()
        return Classifier.load(bundle, variant=variant, backend=backend, threads=threads)


def answers(classifier: Classifier, records: Iterator[Line | BadLine]) -> Iterator[Answer]:
    """Each record's answer, in the order of the records."""
    index = 0
    for window in windows(records, lambda record: len(getattr(record, "text", ""))):
        texts = (record.text for record in window if isinstance(record, Line))
        results = classifier.classify_each(texts)
        for record in window:
            yield _answer(index, record, results)
            index += 1


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
