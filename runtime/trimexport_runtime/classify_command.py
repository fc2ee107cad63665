"""`trimexport-run classify`: answers on standard output, or a job that writes them to a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import click

from .backbone import manifest_of_either
from .classifier import Classifier
from .files import BadLine, Line
from .options import answers_texts
from .progress import Progress, is_terminal, prepare_stdout
from .records import Given, answers, check_given, load, records, show


def _columns(context: click.Context, option: click.Parameter, given: str | None) -> dict[str, str]:
    """The names of columns by their fields, of FIELD=COLUMN,FIELD=COLUMN."""
    named: dict[str, str] = {}
    for item in given.split(",") if given else ():
        name, equals, column = item.partition("=")
        if not (name and equals and column):
            raise click.BadParameter(
                f"{item!r} is not FIELD=COLUMN; write query=q,document=passage"
            )
        if name in named:
            raise click.BadParameter(f"the field {name!r} is named twice; name each once")
        named[name] = column
    return named


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, metavar="[TEXT ... | -]")
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    help="Read texts from a .txt, .csv, .jsonl or .parquet, or all of them in a directory.",
)
@click.option(
    "--pair",
    nargs=2,
    multiple=True,
    metavar="TEXT TEXT",
    help="Two texts, for a bundle whose prompt has two fields, in their order; again for more.",
)
@click.option("--column", help="The column or key of the texts in --file.  [default: text]")
@click.option(
    "--columns",
    metavar="FIELD=COLUMN,...",
    callback=_columns,
    help="The columns or keys of a prompt's fields in --file.  [default: as the fields are called]",
)
@answers_texts
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write a .parquet, .jsonl or .csv with a row for each record of --file.",
)
@click.option("--resume", is_flag=True, help="Go on with an --output that did not come to its end.")
@click.option("--force", is_flag=True, help="Begin --output anew, and replace what is there.")
@click.option(
    "--engine",
    type=click.Choice(("local", "ray")),
    default="local",
    help="What makes --output: this machine, or a Ray cluster.  [default: local]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes that make --output, each with its own model.  "
    "[default: 1; one a core for a small model; ray: as many as there are cores for]",
)
@click.pass_context
def classify(
    context: click.Context,
    bundle: Path,
    texts: tuple[str, ...],
    pair: tuple[tuple[str, str], ...],
    file: Path | None,
    column: str | None,
    columns: dict[str, str],
    task: Path | None,
    as_json: bool,
    variant: str | None,
    backend: str,
    threads: int | None,
    output: Path | None,
    resume: bool,
    force: bool,
    engine: Literal["local", "ray"],
    workers: int | None,
) -> None:
    """Classify texts given as arguments, in files, or one a line on standard input (-).

    Where a bundle's prompt has several fields, two texts are given with --pair, or the fields are
    columns of a file.

    Prints label, probability and the shortened text, separated by tabs, in the order of the
    texts. With --json each line has index (the text's place in the input, from 0), file (where
    there are several), line (its line in the file), text or the fields, label, probability,
    probabilities, truncated, tokens, and the variant and provider that computed it. Lines that
    cannot be read are reported by their number; the others are answered, and the exit status is 1.

    Where a bundle asks several questions, a cell with the answer to each stands in the place of
    label and probability, and with --json an object of answers.

    With -o the results go into a file, in parts that are kept as they are done: however large the
    input, memory is not, and after a kill --resume goes on without losing or doubling a row.

    \b
    Example:
      trimexport-run classify build/sentiment "a gorgeous, witty, seductive movie"
      trimexport-run classify build/sentiment --file reviews.csv --json
      cat reviews.txt | trimexport-run classify build/sentiment -
      trimexport-run classify build/sentiment --file reviews/ -o labels.parquet --resume
      trimexport-run classify build/relevance --pair "who wrote it" "It was written by Ann."
      trimexport-run classify build/relevance --file pairs.csv --columns query=q,document=passage
      trimexport-run classify build/backbone --task tasks/spam.pack "you won a prize"
    """
    given = Given(texts, pair, file, column, columns)
    if output is None:
        for name in ("resume", "force", "engine", "workers"):
            if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name} is about --output; give -o too.")
        check_given(given)
        lines = records(given, manifest_of_either(bundle, task).prompt.places)
        prepare_stdout(as_json)
        classifier = load(bundle, task, variant, backend, threads)
        _print(classifier, lines, as_json, numbered=file is not None or texts == ("-",))
        return
    if file is None or texts or pair:
        raise click.UsageError("-o takes its texts from --file FILE or --file DIRECTORY.")
    check_given(given)
    if resume and force:
        raise click.UsageError("Give --resume or --force, not both.")
    from .jobs.command import run_job  # here, so that other calls do not load it
    from .jobs.job import Job

    run_job(
        Job(
            bundle,
            file,
            output,
            task,
            column,
            columns,
            variant,
            backend,
            engine,
            workers,
            threads,
            resume,
            force,
        ),
        as_json,
    )


def _print(
    classifier: Classifier, lines: Iterator[Line | BadLine], as_json: bool, *, numbered: bool
) -> None:
    """Classify the texts of `lines` and print a line for each, in their order."""
    bad = cut = 0
    with Progress("texts classified:", visible=not is_terminal(sys.stdout)) as progress:
        for answer in answers(classifier, lines):
            show(answer, classifier, as_json=as_json, numbered=numbered)
            bad += isinstance(answer.result, BadLine)
            cut += not isinstance(answer.result, BadLine) and answer.result.truncated
            progress.advance()
    if cut and not as_json:
        manifest = classifier.manifest
        limit, several = manifest.text_limit, len(manifest.prompt.places) > 1
        what = f"{manifest.cut_field} was cut" if several else "were cut"
        click.echo(
            f"Note: {cut:,} of the texts had more than {limit.tokens:,} tokens"
            f"{' with all their fields' * several} and {what} at the {limit.truncate}",
            err=True,
        )
    if bad:
        what = "lines" if numbered else "texts"
        raise click.ClickException(f"{bad:,} of the {what} could not be classified")
