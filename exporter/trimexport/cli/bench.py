"""`trimexport bench`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .console import ConsoleProgress
from .options import JSON, MOVED_ADAPTER, TEXTS


@click.command()
@click.argument("bundle")
@click.option(
    "--against",
    multiple=True,
    metavar="SUBJECT",
    help="Measure this too: another bundle's DIR (its fastest variant) or DIR:VARIANT, or the "
    "untrimmed model in pytorch or pytorch-bf16. May be repeated.",
)
@TEXTS
@click.option("--model", help="Where the checkpoint is now, if it has moved since the build.")
@MOVED_ADAPTER
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads to use.  [default: each engine's own]"
)
@click.option(
    "--rounds", type=click.IntRange(min=1), default=5, help="How often to measure.  [default: 5]"
)
@JSON
def bench(
    bundle: str,
    against: tuple[str, ...],
    texts: Path | None,
    model: str | None,
    adapter: str | None,
    threads: int | None,
    rounds: int,
    as_json: bool,
) -> None:
    """Measure speed and memory of the variants of BUNDLE, or of one: BUNDLE:VARIANT.

    Each runs in a process of its own, and all take turns. Measured are the latency of one text at
    a time, texts per second in batches, the time from the start of the process to its first
    answer, resident memory, the size of the files, and how often it answers as the first one does.

    \b
    Example:
      trimexport bench build/sentiment --against pytorch-bf16 --texts texts.txt
    """
    from trimexport.bench.machine import this_machine
    from trimexport.bench.render import as_dict, table
    from trimexport.bench.rounds import bench as run
    from trimexport.bench.subjects import PYTORCH, find_subjects
    from trimexport.records import combined
    from trimexport.source.shipped import sample_texts
    from trimexport.texts import Texts, read_texts

    if model is not None and not set(against) & set(PYTORCH):
        raise click.UsageError("--model is where --against pytorch finds the model; give both.")
    if adapter is not None and not set(against) & set(PYTORCH):
        raise click.UsageError("--adapter belongs to the model of --against pytorch; give both.")
    progress = ConsoleProgress()
    subjects = find_subjects(bundle, against, model, adapter)
    sample = Texts(combined(sample_texts(), subjects.fields))
    if texts is not None:
        sample = read_texts(texts, fields=subjects.fields, say=progress.say)
    report = run(subjects, sample, threads=threads, rounds=rounds, progress=progress)
    machine = this_machine()
    if as_json:
        click.echo(
            json.dumps(as_dict(report, machine), indent=2, ensure_ascii=False, allow_nan=False)
        )
    else:
        click.echo(table(report, machine))
