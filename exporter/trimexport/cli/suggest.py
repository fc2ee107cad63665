"""`trimexport suggest`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

import trimexport
from trimexport.spec import parse_verbalizers

from .console import ConsoleProgress
from .options import JSON, names_a_question
from .spec_from_options import make_spec


@click.command("suggest")
@names_a_question
@click.option(
    "--examples",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="Texts with their labels: .jsonl, .csv or .parquet, columns text and label.",
)
@click.option(
    "--synonyms",
    multiple=True,
    metavar="LABEL=WORD[,WORD]",
    help="More words to compare for a label.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=10,
    help="How many combinations to show.  [default: 10]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write a recipe with the best words, for `trimexport build --recipe`.",
)
@click.option("--force", is_flag=True, help="Replace a recipe that is there.")
@JSON
def suggest(
    examples: Path,
    synonyms: tuple[str, ...],
    top: int,
    output: Path | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Compare words that may stand for the labels, on examples whose labels are known.

    Compared are the labels' own names, synonyms, other spellings of both, and the words that the
    model itself prefers on each label's examples. Prints the best combinations: accuracy with its
    95 % interval, and the labels' share of the vocabulary's probability.

    \b
    Example:
      trimexport suggest --labels positive,negative --examples dev.jsonl
      trimexport suggest --model google/gemma-2b --labels positive,negative \\
          --prompt "Review: {text}\\nSentiment:" --examples dev.jsonl \\
          --synonyms positive=good,great --synonyms negative=bad -o sentiment.toml
    """
    progress = ConsoleProgress()
    words = parse_verbalizers(synonyms, "--synonyms")
    spec = make_spec(given, progress.say)

    from trimexport.suggestion.recipe import check_recipe_place, write_recipe

    if output is not None:
        check_recipe_place(output, force)  # before PyTorch, which takes its time

    from trimexport.suggestion.render import as_dict, caution, low_mass, table

    suggestion = trimexport.suggest(spec, examples, words, progress=progress)
    progress.say(caution(suggestion))
    if (warning := low_mass(suggestion)) is not None:
        progress.say(warning)
    if as_json:
        value = {**as_dict(suggestion, top), "recipe": None if output is None else str(output)}
        click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(table(suggestion, top))
    if output is None:
        return
    write_recipe(suggestion, output)  # last, for it may fail
    if not as_json:
        click.echo(f"\n{output}: build it with trimexport build --recipe {output}")
