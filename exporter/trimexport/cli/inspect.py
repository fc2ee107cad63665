"""`trimexport inspect`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from .console import ConsoleProgress
from .options import JSON, names_a_classifier
from .spec_from_options import make_spec


@click.command()
@names_a_classifier
@click.option(
    "--text",
    "texts",
    multiple=True,
    help="Show the words that the untrimmed model would say after this text. May be repeated.",
)
@JSON
def inspect(texts: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Show what would be cut: layers, parameters and bytes, before and after.

    With --text the whole model is run on the prompt and each text, and the ten likeliest words are
    shown, with the share of the probability that the labels have.

    \b
    Example:
      trimexport inspect --model models/gemma-mini --labels positive,negative
      trimexport inspect --labels positive,negative --text "a gorgeous, witty, seductive movie"
    """
    progress = ConsoleProgress()
    spec = make_spec(given, progress.say)

    from trimexport.inspection.sizes import inspect_plan
    from trimexport.inspection.table import inspection_table
    from trimexport.planning import plan

    planned = plan(spec)
    for line in planned.notes:
        progress.say(line)
    inspection = inspect_plan(planned)
    value, table = asdict(inspection), inspection_table(inspection, planned)
    if texts:
        from trimexport.inspection.next_words import next_words, next_words_lines

        words = next_words(planned, texts, progress)
        value["texts"] = [asdict(it) for it in words]
        table = "\n".join([table, *("\n" + "\n".join(next_words_lines(it)) for it in words)])
    click.echo(
        json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) if as_json else table
    )
