"""`trimexport suggest`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from trimexport.atomic import check_place, write_files
from trimexport.errors import OutputError
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
    _check_output(output, force)

    from trimexport.evaluation.data import read_examples
    from trimexport.suggestion.candidates import check_synonyms
    from trimexport.suggestion.render import as_dict, caution, recipe, table
    from trimexport.suggestion.suggest import check_examples, refuse_classifier
    from trimexport.suggestion.suggest import suggest as run

    refuse_classifier(spec)
    check_synonyms(words, spec.labels)
    labelled = read_examples(examples, spec.labels)
    check_examples(labelled, spec.labels, examples)
    found = run(spec, labelled, words, progress)
    progress.say(caution(found))
    if as_json:
        value = {**as_dict(found, top), "recipe": None if output is None else str(output)}
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        click.echo(table(found, top))
    if output is None:
        return
    write_files({output: recipe(found, examples.name, output)})  # last, for it may fail
    if not as_json:
        click.echo(f"\n{output}: build it with trimexport build --recipe {output}")


def _check_output(output: Path | None, force: bool) -> None:
    if output is None:
        return
    check_place(output)
    if not output.exists():
        return
    if output.is_dir():
        raise OutputError(f"{output} is a directory; name a file for the recipe with -o")
    if not force:
        raise OutputError(f"{output} exists; give --force to replace it, or another -o")
