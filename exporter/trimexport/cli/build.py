"""`trimexport build`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from trimexport.atomic import check_output
from trimexport.spec import PRECISIONS, TENSORRT, TRUNCATE, BuildSpec

from .console import ConsoleProgress
from .options import JSON, TEXTS, names_a_classifier
from .spec_from_options import make_spec


@click.command()
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
    help="Texts by which int8 balances activations and weights, int4 makes up for its errors, and "
    "tensorrt-int8 scales activations.",
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
    spec = make_spec(given, progress.say)
    target = output or Path("build") / _bundle_name(spec)
    check_output(target, force)

    # PyTorch takes its time, so what can be refused without it is
    from trimexport.parity.json_report import as_dict
    from trimexport.parity.render import table
    from trimexport.pipeline import build as run
    from trimexport.tensorrt.trtexec import trtexec_commands
    from trimexport.texts import read_texts

    sample = None if texts is None else read_texts(texts)
    balance = None if calibration is None else read_texts(calibration, labels=False)
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
        value = {"bundle": str(target), **as_dict(built.report), "trtexec": commands}
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    click.echo(table(built.report))
    for name, versions in commands.items() if given["tensorrt_onnx_only"] else ():
        click.echo(f"\n{name}: build the engine where it will run:")
        click.echo(f"  trimexport-run build-engines {target} --variant {name}")
        for version, command in versions.items():
            click.echo(f"or in {target}, for other programs, with the tool of TensorRT {version}:")
            click.echo(f"  {command}")
    size = sum(file.bytes for file in built.manifest.files)
    click.echo(f"\n{target}: {size / 1e6:,.1f} MB, try: trimexport-run classify {target} TEXT")


def _bundle_name(spec: BuildSpec) -> str:
    """The name of a bundle's directory: its labels, or the fine-tuned model that brings them."""
    return "-".join(spec.labels).replace("/", "_") or Path(spec.model).resolve().name
