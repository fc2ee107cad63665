"""`trimexport-run rerank`: passages ranked for a query, on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from .backbone import manifest_of_either
from .bundle import Field, Manifest
from .classifier import Classifier
from .files import BadLine, Line
from .inputs import required
from .options import answers_texts
from .progress import Progress, is_terminal, prepare_stdout
from .ranking import check_ranks, pair_inputs, ranked, score_of
from .records import Given, answers, check_given, load, records, show
from .render import TEXT_WIDTH, Answer
from .visible import visible

_PASSAGES = (Field("text"),)  # what is read, whatever the prompt calls it


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("query")
@click.argument("passages", nargs=-1, metavar="[PASSAGE ... | -]")
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    help="Read passages from a .txt, .csv, .jsonl or .parquet, or all of them in a directory.",
)
@click.option("--column", help="The column or key of the passages in --file.  [default: text]")
@click.option("--top", type=click.IntRange(min=1), help="How many to print.  [default: all]")
@click.option("--instruction", help="What takes the place of the prompt's own instruction.")
@answers_texts
def rerank(
    bundle: Path,
    query: str,
    passages: tuple[str, ...],
    file: Path | None,
    column: str | None,
    top: int | None,
    instruction: str | None,
    task: Path | None,
    as_json: bool,
    variant: str | None,
    backend: str,
    threads: int | None,
) -> None:
    """Rank passages, given as arguments, in files, or one a line on standard input (-), by their
    scores for QUERY.

    The bundle's prompt has two fields, the query's and the passage's, in this order. Prints score
    and the shortened passage, separated by a tab, the highest score first. With --json each line
    has index (the passage's place in the input, from 0), file (where there are several), line (its
    line in the file), score, document, and truncated. Lines that cannot be read are reported by
    their number; the others are ranked, and the exit status is 1.

    \b
    Example:
      trimexport-run rerank build/relevance "who wrote it" --file passages.jsonl --top 10
      trimexport-run rerank build/relevance "who wrote it" "It was written by Ann." "It is old."
    """
    given = _given(passages, file, column)
    manifest = manifest_of_either(bundle, task)
    check_ranks(manifest)
    lines = _pairs(manifest, query, instruction, records(given, _PASSAGES))
    prepare_stdout(as_json)
    classifier = load(bundle, task, variant, backend, threads)
    numbered = file is not None or passages == ("-",)
    _print(classifier, lines, top, as_json=as_json, numbered=numbered)


def _given(passages: tuple[str, ...], file: Path | None, column: str | None) -> Given:
    if passages and file is not None:
        raise click.UsageError("Give passages or --file, not both.")
    if not passages and file is None:
        raise click.UsageError(
            "No passages: give PASSAGE arguments, --file FILE, or - to read stdin."
        )
    given = Given(passages, file=file, column=column)
    check_given(given)
    return given


def _pairs(
    manifest: Manifest, query: str, instruction: str | None, lines: Iterator[Line | BadLine]
) -> Iterator[Line | BadLine]:
    """The lines with the bundle's inputs in the place of passages."""
    pair_inputs(manifest, [], instruction)  # which refuses an instruction at once
    for line in lines:
        if isinstance(line, Line):
            (texts,) = pair_inputs(manifest, [(query, str(line.text))], instruction)
            yield replace(line, text=texts)
        else:
            yield line


def _print(
    classifier: Classifier,
    lines: Iterator[Line | BadLine],
    top: int | None,
    *,
    as_json: bool,
    numbered: bool,
) -> None:
    """Score the passages of `lines`, and print those with the highest scores."""
    scored: list[tuple[float, bool, Answer]] = []
    bad = 0
    with Progress("passages scored:", visible=not is_terminal(sys.stdout)) as progress:
        for answer in answers(classifier, lines):
            if isinstance(answer.result, BadLine):
                bad += 1
                show(answer, classifier, as_json=as_json, numbered=numbered)
            else:
                scored.append((score_of(answer.result), answer.result.truncated, answer))
            progress.advance()
    _, document = required(classifier.manifest.prompt.places)
    for place in ranked([score for score, _, _ in scored], top):
        score, truncated, answer = scored[place]
        assert not isinstance(answer.text, str)
        passage = answer.text[document]
        if as_json:
            click.echo(_json(answer, score, passage, truncated, numbered=numbered))
        else:
            shown = passage if len(passage) <= TEXT_WIDTH else passage[: TEXT_WIDTH - 1] + "…"
            click.echo(f"{score:.4f}\t{visible(shown)}")
    _report(classifier.manifest, sum(cut for _, cut, _ in scored), bad, as_json=as_json)


def _json(answer: Answer, score: float, passage: str, truncated: bool, *, numbered: bool) -> str:
    where: dict[str, object] = {} if answer.file is None else {"file": answer.file}
    where |= {"line": answer.number} if numbered else {}
    value = {"index": answer.index, **where, "score": score, "document": passage}
    return json.dumps(value | {"truncated": truncated}, ensure_ascii=False, allow_nan=False)


def _report(manifest: Manifest, cut: int, bad: int, *, as_json: bool) -> None:
    """Say how many pairs were cut, and end with exit status 1 if some had no score."""
    if cut and not as_json:
        click.echo(
            f"Note: {cut:,} of the pairs had more than {manifest.text_limit.tokens:,} tokens, and "
            f"were cut at the {manifest.text_limit.truncate}",
            err=True,
        )
    if bad:
        raise click.ClickException(f"{bad:,} of the passages could not be scored")
