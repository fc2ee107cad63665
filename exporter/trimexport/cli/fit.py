"""`trimexport fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trimexport.atomic import check_output
from trimexport_runtime import read_manifest

from .console import ConsoleProgress
from .evaluate import label_names, require_libraries
from .options import JSON, LABEL_COLUMN, TEXT_COLUMN

if TYPE_CHECKING:
    from trimexport.tuning.fit import Fitted

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
@TEXT_COLUMN
@LABEL_COLUMN
@click.option("--map", "names", metavar="NAME=LABEL,...", help="What labels are called in files.")
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
@JSON
def fit(
    bundle: Path,
    examples: Path,
    output: Path,
    test: Path | None,
    shots: str | None,
    seeds: int,
    text_column: str,
    label_column: str,
    names: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Fit the head of BUNDLE to examples, and write it as a new bundle.

    The backbone stays as it was exported. The label words' rows are the start, and a regularised
    logistic regression on the last hidden states moves them. Prints accuracy before and after, on
    --test or by cross-validation. The new bundle is fitted on all examples, or on the draw where
    --shots is one number and --seeds 1.

    \b
    Example:
      trimexport fit build/spam --examples train.jsonl --test test.jsonl -o build/spam-fitted
      trimexport fit build/spam --examples train.jsonl --shots 16,64,256 -o build/spam-fitted
    """
    numbers = _numbers(shots)
    require_libraries("fitting")
    check_output(output, force)
    labels = read_manifest(bundle).label_names

    from trimexport.evaluation.data import read_labelled
    from trimexport.tuning import fit as fitting

    columns = (labels, text_column, label_column, label_names(names))
    found = fitting.fit(
        bundle,
        output,
        read_labelled(examples, *columns),
        test=None if test is None else read_labelled(test, *columns),
        shots=numbers,
        seeds=seeds,
        force=force,
        progress=ConsoleProgress(),
    )
    if as_json:
        click.echo((output / fitting.REPORT).read_text(encoding="utf-8"), nl=False)
    else:
        click.echo("\n".join(_lines(output, found, on_test=test is not None)))


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return () if text is None else tuple(sorted({int(it) for it in text.split(",")}))
    except ValueError:
        raise click.UsageError(f"--shots is numbers such as 16,64,256, not {text!r}.") from None


def _lines(output: Path, found: Fitted, *, on_test: bool) -> list[str]:
    record, compared = found.manifest.fit, found.compared
    assert record is not None
    learned = ", ".join(f"{label} {count:,}" for label, count in record.examples.items())
    where = "the test" if on_test else "what the draw left" if record.shots else "held out in turn"
    scores = {
        "zero-shot": compared.zero_shot,
        "batch-calibrated": compared.calibrated,
        "fitted": compared.fitted,
    }
    return [
        f"{compared.fitted.texts:,} texts ({where}), {compared.majority:.2%} of them of one label",
        "",
        f"{'':<18} {'accuracy':>9} {'macro F1':>9}",
        *(f"{name:<18} {it.accuracy:>9.2%} {it.macro_f1:>9.2%}" for name, it in scores.items()),
        "",
        f"fitted on {learned}; C {record.strength:g}, "
        f"{record.accuracy:.2%} right in {record.folds}-fold cross-validation",
        *_curve(found),
        "",
        f"{output}: measure its parity with `trimexport verify {output}`",
    ]


def _curve(found: Fitted) -> list[str]:
    """A line for each number of shots."""
    from trimexport.tuning.trials import curve

    row = "{:>6} {:>8} {:>8} {:>8} {:>8} {:>9} {:>10} {:>11}"
    shares = ("accuracy", "deviation", "least", "most", "macro_f1", "zero_shot", "calibrated")
    names = ("shots", "mean", "sd", "least", "most", "macro F1", "zero-shot", "calibrated")
    lines = []
    for point in curve(found.trials):
        values = (getattr(point, name) for name in shares)
        cells = ("-" if value is None else f"{value:.2%}" for value in values)
        lines.append(row.format(f"{point.shots:,}", *cells))
    return ["", row.format(*names), *lines] if lines else []
