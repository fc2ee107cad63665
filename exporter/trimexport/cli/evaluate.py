"""`trimexport eval`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
    "--threshold",
    metavar="P|auto",
    help="From which probability on a label is true: an independent one, the first of log-odds, or "
    "the last of a question's two; auto finds the best on DATA.",
)
@click.option("--save", is_flag=True, help="Write that threshold into BUNDLE, which answers by it.")
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
    threshold: str | None,
    save: bool,
    compare: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Judge BUNDLE's answers by DATA (.jsonl, .csv or .parquet), whose texts have labels.

    Prints accuracy with its 95 % interval, macro F1, each label's precision and recall, the
    confusion matrix, calibration error and speed, and writes them with plots and the worst mistakes
    as one HTML page, and with every answer as JSON.

    Of independent labels DATA gives each text a list, or several with commas between them. Printed
    are micro and macro F1 and each label's scores, and no page is written. So it is with log-odds
    where a threshold is given: then the first label is what is looked for. Of several questions
    DATA has a column or key for each, called as the question is, and may lack some labels. Printed
    are each question's accuracy and macro F1, their means and each label's scores, and no page is
    written.

    \b
    Example:
      trimexport eval build/sentiment sst2/test.jsonl
      trimexport eval build/sentiment test.csv --text-column review --map 0=negative,1=positive
      trimexport eval build/other test.csv --compare build/sentiment/reports/eval-test.json
      trimexport eval build/guard dev.jsonl --threshold auto --save
    """
    if save and threshold is None:
        raise click.UsageError("--save writes a threshold; give one, or auto, with --threshold.")
    several, independent = _kind(bundle)
    if threshold is not None or independent or several:
        given = {"abstain-below": abstain_below, "compare": compare, "output": output}
        what = "a bundle with one question" if several else "labels of which one is true"
        for name in (name for name, value in given.items() if value is not None):
            raise click.UsageError(f"--{name} is of {what}; leave it out.")
        where = columns_of(text_column, label_column, names, columns)
        if several and save:
            raise click.UsageError("--save writes one threshold; questions have none in a bundle.")
        asked = {
            "columns": where,
            "variants": () if variant is None else parse_names(variant),
            "threshold": None if threshold in (None, "auto") else _probability(threshold),
            "find": threshold == "auto",
            "progress": ConsoleProgress(),
        }
        if several:
            _evaluate_questions(bundle, data, asked, as_json)
        else:
            _evaluate_independent(bundle, data, asked, save, as_json)
        return
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


def _kind(bundle: Path) -> tuple[bool, bool]:
    """Whether a bundle asks several questions, and whether its labels are independent."""
    from trimexport_runtime import read_manifest
    from trimexport_runtime.bundle import INDEPENDENT

    manifest = read_manifest(bundle)
    return bool(manifest.questions), manifest.score.kind == INDEPENDENT


def _evaluate_questions(
    bundle: Path,
    data: Path,
    asked: Mapping[str, Any],
    as_json: bool,
) -> None:
    """Judge the answers to several questions; `asked` are further arguments."""
    from trimexport.evaluation.render_questions import text_lines
    from trimexport.evaluation.several_questions import evaluate_questions

    found = evaluate_questions(bundle, data, **asked)
    if as_json:
        value = {"bundle": str(bundle), "data": str(data), **asdict(found)}
        click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
        return
    click.echo("\n".join(text_lines(found)))


def _evaluate_independent(
    bundle: Path,
    data: Path,
    asked: Mapping[str, Any],
    save: bool,
    as_json: bool,
) -> None:
    """Judge labels that are true from a threshold on; `asked` are further arguments."""
    from trimexport.evaluation.multi_label import evaluate_independent, save_threshold, text_lines
    from trimexport.evaluation.run import variant_names
    from trimexport_runtime import read_manifest

    if save and len(variant_names(asked["variants"], read_manifest(bundle))) > 1:
        raise click.UsageError("--save writes the threshold of one variant; name it.")
    found = evaluate_independent(bundle, data, **asked)
    if save:
        save_threshold(bundle, found[0].threshold)
    if as_json:
        value = {"bundle": str(bundle), "data": str(data), "variants": [asdict(it) for it in found]}
        click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
        return
    click.echo("\n\n".join("\n".join(text_lines(scores)) for scores in found))


def _probability(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(
            f"--threshold is {text!r}; give a probability from 0 to 1, or auto."
        ) from None
