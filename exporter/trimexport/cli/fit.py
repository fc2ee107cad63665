"""`trimexport fit`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

import trimexport
from trimexport.spec import LAST, POOLS

from .columns import columns_of
from .console import ConsoleProgress
from .options import COLUMNS, JSON, LABEL_COLUMN, TASK, TEXT_COLUMN

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("fit")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--examples", required=True, type=_FILE, help="Texts with labels: .jsonl, .csv or .parquet."
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory of the new bundle.",
)
@click.option(
    "--question",
    help="Whose head, where BUNDLE asks several.  [default: all that the examples label]",
)
@click.option("--test", type=_FILE, help="Texts with labels to score on.  [default: the examples]")
@click.option(
    "--shots",
    metavar="NUMBERS",
    help="Also draw so many examples of each label, such as 16,64,256, and score what they give.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=5,
    help="How often to draw each of --shots.  [default: 5]",
)
@click.option(
    "--depth",
    metavar="auto|N",
    callback=lambda _context, _option, text: _depth(text),
    help="Keep the model's first N layers alone, or as few as the examples need; the bundle is "
    "built from its checkpoint again.",
)
@click.option(
    "--pool",
    type=click.Choice(POOLS),
    help="What the head reads: the prompt's last hidden state, or the mean of those of the text's "
    "own tokens.  [default: last]",
)
@click.option("--model", help="Where the checkpoint is now, with --depth or --pool.")
@TEXT_COLUMN
@COLUMNS
@LABEL_COLUMN
@click.option("--map", "names", metavar="NAME=LABEL,...", help="What labels are called in files.")
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
@TASK
@JSON
def fit(
    bundle: Path,
    examples: Path,
    output: Path,
    question: str | None,
    test: Path | None,
    shots: str | None,
    seeds: int,
    depth: int | str | None,
    pool: str | None,
    model: str | None,
    text_column: str | None,
    columns: str | None,
    label_column: str,
    names: str | None,
    force: bool,
    task: Path | None,
    as_json: bool,
) -> None:
    """Fit the head of BUNDLE to examples, and write it as a new bundle.

    The backbone stays as it was exported. The label words' rows are the start, and a regularised
    logistic regression on the last hidden states moves them. Prints accuracy before and after, on
    --test or by cross-validation. The new bundle is fitted on all examples, or on the draw where
    --shots is one number and --seeds 1. Where BUNDLE asks several questions, files have a column or
    key for each, called as the question is, and may lack some labels.

    With --depth the head reads the model behind its first layers, and the bundle has no others: as
    accurate where the middle knows enough, in a part of the time. `auto` takes the fewest whose
    cross-validated accuracy on the examples is within one standard error of the best.

    \b
    Example:
      trimexport fit build/spam --examples train.jsonl --test test.jsonl -o build/spam-fitted
      trimexport fit build/spam --examples train.jsonl --shots 16,64,256 -o build/spam-fitted
      trimexport fit build/spam --examples train.jsonl --depth auto --pool mean -o build/spam-small
      trimexport fit build/backbone --task tasks/spam.pack --examples train.jsonl -o tasks/new.pack
    """
    from trimexport.tuning.render import fitted_lines

    if depth is not None or pool is not None:
        if question is not None or task is not None:
            raise click.UsageError("--depth and --pool are of a bundle with one question.")
        from trimexport.tuning.fit_depth import fit_depth

        run = partial(fit_depth, depth=depth, pool=pool or LAST, model=model)
    elif model is not None:
        raise click.UsageError("--model is where --depth and --pool read the checkpoint.")
    else:
        run = _run(bundle, question, task)
    fitted = run(
        bundle,
        output,
        examples,
        test=test,
        columns=columns_of(text_column, label_column, names, columns),
        shots=_numbers(shots),
        seeds=seeds,
        force=force,
        progress=ConsoleProgress(),
    )
    each = fitted if isinstance(fitted, tuple) else (fitted,)
    if as_json:
        click.echo(json.dumps(each[0].report, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo("\n".join(fitted_lines(each)))


def _run(bundle: Path, question: str | None, task: Path | None) -> Any:
    """What fits the head of a bundle or a pack as it is."""
    from trimexport.tuning.fit import fit_questions
    from trimexport_runtime.backbone import manifest_of_either

    several = question is None and manifest_of_either(bundle, task).questions
    run = fit_questions if several else partial(trimexport.fit, question=question)
    return partial(run, pack=task)


def _depth(text: str | None) -> int | str | None:
    """`auto`, or a number of layers."""
    if text is None or text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise click.UsageError(f"--depth is auto or a number of layers, not {text!r}.") from None


def _numbers(text: str | None) -> tuple[int, ...]:
    """`16,64` -> its numbers, the least first and each once."""
    try:
        return () if text is None else tuple(sorted({int(number) for number in text.split(",")}))
    except ValueError:
        raise click.UsageError(f"--shots is numbers such as 16,64,256, not {text!r}.") from None
