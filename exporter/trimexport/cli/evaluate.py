"""`trimexport eval`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trimexport.atomic import write_files
from trimexport.errors import EvaluationError
from trimexport.spec import parse_names
from trimexport_runtime import Manifest, read_manifest

from .console import ConsoleProgress
from .options import JSON, LABEL_COLUMN, TEXT_COLUMN

if TYPE_CHECKING:
    from trimexport.evaluation.data import Labelled
    from trimexport.evaluation.run import Evaluation


@click.command("eval")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@TEXT_COLUMN
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
    text_column: str,
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
    require_libraries("evaluating")
    from trimexport.evaluation.data import missing, read_labelled
    from trimexport.evaluation.earlier import compared, read_earlier
    from trimexport.evaluation.run import evaluate as run

    manifest = read_manifest(bundle)
    labels = manifest.label_names
    given = read_labelled(data, labels, text_column, label_column, label_names(names))
    if absent := missing(given.gold, labels):
        click.echo(f"Note: no text of {data} has the label {', '.join(absent)}", err=True)
    if given.repeated:
        click.echo(f"Note: {given.repeated:,} texts of {data} stand there before", err=True)
    _note_examples(bundle, manifest, data, given)
    earlier = None if compare is None else read_earlier(compare, given)
    found = []
    for name in _variants(variant, [it.name for it in manifest.variants]):
        with ConsoleProgress().bar("classifying", len(given.texts)) as advance:
            result = run(bundle, given, name, abstain_below, advance)
        found.append(result if earlier is None else compared(result, given, earlier))
    page = output or bundle / "reports" / f"eval-{data.stem}.html"
    value = _write(page, bundle, data, given, labels, found)
    _print(value, found, labels, page, as_json=as_json)


def _note_examples(bundle: Path, manifest: Manifest, data: Path, given: Labelled) -> None:
    """Say how many texts the bundle knows with their labels."""
    from trimexport.prompt.few_shot import shown_as_examples
    from trimexport.tuning.examples import LEARNED, learned_from

    if learned := learned_from(bundle / LEARNED, set(given.texts)):
        click.echo(
            f"Note: the head was fitted on {len(learned):,} texts of {data}; judge it by others",
            err=True,
        )
    if shown := shown_as_examples(manifest.prompt, set(given.texts)):
        click.echo(
            f"Note: {len(shown):,} texts of {data} stand in the bundle's prompt as examples, with "
            "their labels; judge it by others",
            err=True,
        )


def require_libraries(doing: str) -> None:
    """Look whether the libraries of the extra `eval` are there.

    Raises:
        EvaluationError: they are not.
    """
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise EvaluationError(
            f"{doing} needs scikit-learn and matplotlib ({error}); install `trimexport[eval]`"
        ) from None


def label_names(text: str | None) -> dict[str, str]:
    """What `--map` says: a name in the file -> a label."""
    pairs = [] if text is None else [item.partition("=") for item in text.split(",")]
    if not all(equals for _, equals, _ in pairs):
        raise click.UsageError("--map is NAME=LABEL,NAME=LABEL.")
    return {name.strip(): label.strip() for name, _, label in pairs}


def _variants(asked: str | None, there: list[str]) -> list[str | None]:
    if asked is None:
        return [None]
    return list(there if asked == "all" else parse_names(asked))


def _write(
    page: Path,
    bundle: Path,
    data: Path,
    given: Labelled,
    labels: Sequence[str],
    found: list[Evaluation],
) -> dict[str, object]:
    """The page, and all of it as JSON beside it, which is returned."""
    from trimexport.evaluation.page import html_page
    from trimexport.evaluation.run import as_dict, digest

    value: dict[str, object] = {
        "bundle": str(bundle),
        "data": str(data),
        "digest": digest(given),
        "labels": list(labels),
        "variants": [as_dict(it) for it in found],
    }
    text = html_page(f"{bundle.resolve().name} on {data.name}", found, labels)
    write_files({page: text, page.with_suffix(".json"): json.dumps(value)})
    return value


def _print(
    value: dict[str, object],
    found: list[Evaluation],
    labels: Sequence[str],
    page: Path,
    *,
    as_json: bool,
) -> None:
    from trimexport.evaluation.render import text_lines

    if as_json:
        click.echo(json.dumps(value, ensure_ascii=False))
        return
    for evaluation in found:
        click.echo("\n".join([*text_lines(evaluation, labels), ""]))
    click.echo(f"{page}")
