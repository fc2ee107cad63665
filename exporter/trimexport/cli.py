"""`trimexport`: build bundles, verify and measure them, inspect what would be cut.

Results go to standard output, everything else to standard error. Exit status: 0 done, 1 an
expected failure, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from . import __version__
from .atomic import check_output
from .bench.command import bench
from .cli_options import JSON, MOVED_ADAPTER, TEXTS, names_a_classifier
from .console import Commands, ConsoleProgress
from .evaluation.command import evaluate
from .options import Options, make_spec
from .spec import PRECISIONS, TENSORRT, TRUNCATE, BuildSpec, parse_names
from .suggestion.command import suggest
from .tuning.calibrate_command import calibrate
from .tuning.fit_command import fit


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trimexport")
def main() -> None:
    """Compile text classifiers out of decoder language models.

    \b
    Example:
      trimexport build --labels positive,negative -o build/sentiment
    """


@main.command()
@click.option(
    "--recipe",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A TOML file that names the build; options given beside it take precedence.",
)
@names_a_classifier
@click.option(
    "--precision",
    help=f"Variants: {', '.join(PRECISIONS)}. The first is also onnx/model.onnx, for other "
    "clients.  [default: int8]",
)
@click.option(
    "--tensorrt",
    metavar="PRECISIONS",
    help=f"Variants for TensorRT besides, with their engines: {', '.join(TENSORRT)}. An engine "
    "runs on the kind of GPU that it was built on.",
)
@click.option(
    "--tensorrt-onnx-only",
    is_flag=True,
    help="Write the graphs for TensorRT and the commands that build their engines, which needs "
    "neither TensorRT nor a GPU.",
)
@click.option(
    "--max-tokens", type=int, help="Most tokens of prompt and text.  [default: the model's context]"
)
@click.option(
    "--truncate", type=click.Choice(TRUNCATE), help="Which end of a longer text is cut off."
)
@TEXTS
@click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts by which int8 and int4 balance activations and weights, and by which tensorrt-int8 "
    "scales activations.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Directory of the bundle.  [default: build/ and the labels, or a classifier's own name]",
)
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
@JSON
def build(
    texts: Path | None,
    calibration: Path | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Build a bundle and prove that it answers as the untrimmed model does.

    \b
    Example:
      trimexport build --model google/gemma-2b --labels positive,negative \\
          --prompt "Review: {text}\\nSentiment:" -o build/sentiment
      trimexport build --recipe models/sst2-gemma-2b.toml -o build/sst2
    """
    progress = ConsoleProgress()
    spec = make_spec(Options(**given), progress.say)
    target = output or Path("build") / _bundle_name(spec)
    check_output(target, force)

    from .parity import (
        render as report,  # PyTorch takes its time, so what can be refused without it is
    )
    from .pipeline import build as run
    from .tensorrt.trtexec import trtexec_commands
    from .texts import read_texts

    sample = None if texts is None else read_texts(texts)
    balance = None if calibration is None else read_texts(calibration)
    built = run(
        spec,
        target,
        force=force,
        sample=sample,
        calibration=balance,
        engines=not given["tensorrt_onnx_only"],
        progress=progress,
    )
    commands = trtexec_commands(built.manifest)
    if as_json:
        found = {"bundle": str(target), **report.as_dict(built.report), "trtexec": commands}
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    click.echo(report.table(built.report))
    for name, versions in commands.items() if given["tensorrt_onnx_only"] else ():
        click.echo(f"\n{name}: build the engine where it will run:")
        click.echo(f"  trimexport-run build-engines {target} --variant {name}")
        for version, command in versions.items():
            click.echo(f"or in {target}, for other programs, with the tool of TensorRT {version}:")
            click.echo(f"  {command}")
    size = sum(file.bytes for file in built.manifest.files)
    click.echo(f"\n{target}: {size / 1e6:,.1f} MB, try: trimexport-run classify {target} TEXT")


def _bundle_name(spec: BuildSpec) -> str:
    """After the labels, or after the fine-tuned model that brings them."""
    return "-".join(spec.labels).replace("/", "_") or Path(spec.model).resolve().name


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@TEXTS
@click.option("--model", help="Where the checkpoint is now, if it has moved since the build.")
@MOVED_ADAPTER
@click.option(
    "--backends",
    metavar="NAMES",
    default="onnxruntime",
    help="What runs the variants: onnxruntime, pytorch (the cut head alone), onnxruntime-cuda, "
    "onnxruntime-tensorrt, tensorrt, optimum; or all.  [default: onnxruntime, on the CPU]",
)
@click.option(
    "--optimum-python",
    metavar="PYTHON",
    default=sys.executable,
    help="The Python of an environment with optimum-onnx.  [default: this one]",
)
@JSON
def verify(
    bundle: Path,
    texts: Path | None,
    model: str | None,
    adapter: str | None,
    backends: str,
    optimum_python: str,
    as_json: bool,
) -> None:
    """Compare every variant of BUNDLE with the untrimmed PyTorch model.

    Prints a table and writes reports/parity.html into the bundle. Exits 1 if a variant is outside
    its tolerance, naming the texts, or did not run on a backend that was named; with all, what
    cannot run here is shown as not run.

    \b
    Example:
      trimexport verify build/sentiment --texts texts.txt
      trimexport verify build/sentiment --backends all --optimum-python optimum/bin/python
    """
    if model is not None:
        from .source.hub import local_directory

        local_directory(model)  # refuses what it cannot be

    from .parity import render as report
    from .parity.backends import BACKENDS
    from .parity.report import require
    from .texts import read_texts
    from .verification import verify as run

    names = BACKENDS if backends == "all" else parse_names(backends)
    if not set(names) <= set(BACKENDS):
        raise click.UsageError(f"--backends takes {', '.join(BACKENDS)}, or all.")
    sample = None if texts is None else read_texts(texts)
    found = run(
        bundle,
        sample=sample,
        model=model,
        adapter=adapter,
        backends=names,
        optimum=optimum_python,
        progress=ConsoleProgress(),
    )
    if as_json:
        click.echo(json.dumps(report.as_dict(found), indent=2, ensure_ascii=False))
    else:
        click.echo(report.table(found))
    require(found, () if backends == "all" else names)


@main.command()
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
    spec = make_spec(Options(**given), progress.say)

    from .inspection.sizes import inspect_plan
    from .inspection.table import inspection_table
    from .planning import plan

    planned = plan(spec)
    for line in planned.notes:
        progress.say(line)
    found = inspect_plan(planned)
    value, table = asdict(found), inspection_table(found, planned)
    if texts:
        from .inspection.next_words import saying_lines, what_is_said

        said = what_is_said(planned, texts, progress)
        value["texts"] = [asdict(it) for it in said]
        table = "\n".join([table, *("\n" + "\n".join(saying_lines(it)) for it in said)])
    click.echo(json.dumps(value, indent=2, ensure_ascii=False) if as_json else table)


main.add_command(bench)
main.add_command(evaluate)
main.add_command(calibrate)
main.add_command(fit)
main.add_command(suggest)
