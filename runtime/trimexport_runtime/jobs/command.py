"""A job on the command line: it runs with its progress shown, and its outcome is printed."""

from __future__ import annotations

import json
import sys
import time
from contextlib import redirect_stdout

import click

from trimexport_runtime.progress import Progress, prepare_stdout

from .job import Job, Outcome, run
from .parts import LISTED


def run_job(job: Job, as_json: bool) -> None:
    """Run a job and print its outcome, in a sentence or as a JSON object.

    Raises:
        ClickException: some records could not be classified; it says how many.
        InputError, BundleError, BackendError: as `job.run`; notes on them are printed first.
    """
    began = time.monotonic()
    try:
        # Ray prints what happens to its workers.
        with redirect_stdout(sys.stderr), Progress("texts classified:", rate=True) as progress:
            outcome = run(job, progress)
    except BaseException as error:
        for note in getattr(error, "__notes__", ()):
            click.echo(note, err=True)
        raise
    if outcome is None:
        click.echo(
            f"{job.output} is there already and no job to go on with, so nothing was done or "
            "compared; --force begins anew",
            err=True,
        )
        if as_json:
            click.echo(json.dumps({"output": str(job.output), "scored": 0}, allow_nan=False))
        return
    _print_outcome(job, outcome, time.monotonic() - began, as_json)


def _print_outcome(job: Job, outcome: Outcome, seconds: float, as_json: bool) -> None:
    tally = outcome.tally
    rate = outcome.scored / seconds
    prepare_stdout(as_json)
    if as_json:
        value = {
            "output": str(job.output),
            "records": tally.records,
            "bad": tally.bad,
            "truncated": tally.truncated,
            "scored": outcome.scored,
            "seconds": round(seconds, 3),
            "texts_per_second": round(rate, 1),
        }
        click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
    else:
        resumed = tally.records - outcome.scored
        earlier = f" ({resumed:,} of them before)" if resumed else ""
        click.echo(
            f"{job.output}: {tally.records:,} records{earlier}; {outcome.scored:,} in "
            f"{seconds:,.1f} s, {rate:,.1f} a second"
        )
        if tally.truncated:
            click.echo(f"Note: {tally.truncated:,} of the texts were cut at the limit", err=True)
    if tally.bad:
        for line in tally.listed:
            click.echo(line, err=True)
        more = f"; the first {LISTED} are named here" if tally.bad > LISTED else ""
        raise click.ClickException(
            f"{tally.bad:,} of the records could not be classified: `error` in {job.output} says "
            f"why{more}"
        )
