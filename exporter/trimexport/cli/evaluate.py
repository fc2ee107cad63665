"""`trimexport eval`."""

from __future__ import annotations

import json
from pathlib import Path

import click

import trimexport
from trimexport.spec import parse_names

from .columns import columns_of
from .console import ConsoleProgress
from .options import COLUMNS, JSON, LABEL_COLUMN, TEXT_COLUMN


@click.command("eval")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@TEXT_COLUMN
@COLUMNS
@LABEL_COLUMN
@click.option("--map", "names", metavar="NAME=LABEL,...", help="What labels are called in DATA.")
@click.option("--variant", help="Variants, or all.  [default: the fastest]")
@click.option("--abstain-below", type=click.FloatRange(0, 1), help="Give no less sure answers.")
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    help="The .json of another evaluation of DATA, to test the difference.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The page, with a .json beside it.  [default: reports/eval-DATA.html in BUNDLE]",
)
@JSON
def evaluate(
    bundle: Path,
    data: Path,
    text_column: str | None,
    columns: str | None,
    label_column: str,
    names: str | None,
    variant: str | None,
    abstain_below: float | None,
    compare: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Judge BUNDLE's answers by DATA (.jsonl, .csv or .parquet), whose texts have labels.

    Prints accuracy with its 95 % interval, macro F1, each label's precision and recall, the
    confusion matrix, calibration error and speed, and writes them with plots and the worst mistakes
    as one HTML page, and with every answer as JSON.

    \b
    Example:
      trimexport eval build/sentiment sst2/test.jsonl
      trimexport eval build/sentiment test.csv --text-column review --map 0=negative,1=positive
      trimexport eval build/other test.csv --compare build/sentiment/reports/eval-test.json
    """
    page = output or bundle / "reports" / f"eval-{data.stem}.html"
    evaluated = trimexport.evaluate(
        bundle,
        data,
        columns=columns_of(text_column, label_column, names, columns),
        variants=() if variant is None else parse_names(variant),
        abstain_below=abstain_below,
        compare=compare,
        page=page,
        progress=ConsoleProgress(),
    )

    from trimexport.evaluation.record import as_dict
    from trimexport.evaluation.render import text_lines

    if as_json:
        click.echo(json.dumps(as_dict(evaluated), ensure_ascii=False, allow_nan=False))
        return
    for evaluation in evaluated.variants:
        click.echo("\n".join([*text_lines(evaluation, evaluated.labels), ""]))
    click.echo(f"{page}")
