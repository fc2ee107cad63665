"""`trimexport build`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimexport.atomic import check_output
from trimexport.errors import SpecError
from trimexport.spec import PRECISIONS, TENSORRT, BuildSpec, check_keep, parse_names

from .backbone import build_backbone
from .console import ConsoleProgress
from .options import JSON, TEXTS, TRUNCATE, names_a_classifier
from .spec_from_options import make_spec

if TYPE_CHECKING:
    from trimexport.pipeline import Built
    from trimexport_runtime import Manifest


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
@TRUNCATE
@TEXTS
@click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts like those to come, without labels, by which int8, int4 and tensorrt-int8 are "
    "made; otherwise some that ship.",
)
@click.option(
    "--keep",
    metavar="VARIANTS",
    help="Variants that the bundle gets even if they are outside their tolerance; it says so of "
    "them.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Directory of the bundle.  [default: build/ and the labels, or a classifier's own name]",
)
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
@click.option(
    "--backbone",
    is_flag=True,
    help="Build the model without a task, which `trimexport pack` completes.  [default directory: "
    "build/backbone]",
)
@JSON
def build(
    texts: Path | None,
    calibration: Path | None,
    keep: str | None,
    output: Path | None,
    force: bool,
    backbone: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Build a bundle and prove that it answers as the untrimmed model does.

    A variant outside its tolerance is left out, unless --keep names it: the bundle holds the
    others, and the exit status is 1. Where none is left there is no bundle.

    \b
    Example:
      trimexport build --model google/gemma-2b --labels positive,negative \\
          --prompt "Review: {text}\\nSentiment:" -o build/sentiment
      trimexport build --recipe models/sst2-gemma-2b.toml -o build/sst2
      trimexport build --backbone --model google/gemma-2b -o build/backbone
    """
    if backbone:
        own = {"texts": texts, "calibration": calibration, "keep": keep, "output": output}
        build_backbone({**given, **own, "force": force, "as_json": as_json})
        return
    progress = ConsoleProgress()
    spec = make_spec(given, progress.say)
    target = output or Path("build") / _bundle_name(spec)
    check_output(target, force)
    kept = () if keep is None else parse_names(keep)
    try:
        check_keep(kept, spec)
    except SpecError as error:
        raise click.UsageError(f"--keep: {error}.") from None

    # PyTorch takes its time, so what can be refused without it is
    from trimexport.pipeline import PartialBuildError
    from trimexport.pipeline import build as run
    from trimexport.prompt.questions import text_places
    from trimexport.texts import read_texts

    fields = () if texts is None and calibration is None else text_places(spec)
    sample = None if texts is None else read_texts(texts, fields=fields, say=progress.say)
    balance = None
    if calibration is not None:
        balance = read_texts(calibration, fields=fields, labels=False)
    commands = given["tensorrt_onnx_only"]
    try:
        with redirect_stdout(sys.stderr):  # of libraries; the results alone are printed
            built = run(
                spec,
                target,
                force=force,
                sample=sample,
                calibration=balance,
                engines=not commands,
                keep=kept,
                progress=progress,
            )
    except PartialBuildError as error:
        _show(error.built, error.dropped, commands, as_json)
        raise
    _show(built, (), commands, as_json)


def _show(built: Built, dropped: Sequence[str], commands: bool, as_json: bool) -> None:
    """Print what was built. `commands`: with those that build its engines."""
    from trimexport.parity.json_report import as_dict
    from trimexport.parity.render import table
    from trimexport.tensorrt.trtexec import trtexec_commands

    target, trtexec = built.directory, trtexec_commands(built.manifest)
    if as_json:
        value = {
            "bundle": str(target),
            "dropped": list(dropped),
            **as_dict(built.report),
            "trtexec": trtexec,
        }
        click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
        return
    click.echo(table(built.report))
    for name, versions in trtexec.items() if commands else ():
        click.echo(f"\n{name}: build the engine where it will run:")
        click.echo(f"  trimexport-run build-engines {target} --variant {name}")
        for version, command in versions.items():
            click.echo(f"or in {target}, for other programs, with the tool of TensorRT {version}:")
            click.echo(f"  {command}")
    size = sum(file.bytes for file in built.manifest.files)
    tried = _example(built.manifest, target)
    click.echo(f"\n{target}: {size / 1e6:,.1f} MB, try: trimexport-run {tried}")


def _example(manifest: Manifest, target: Path) -> str:
    """A command of `trimexport-run` that the bundle answers."""
    from trimexport_runtime.inputs import required

    names = [name.upper() for name in required(manifest.prompt.places)]
    if len(names) > 2:
        return f"classify {target} --file FILE"
    if len(names) == 2 and manifest.outputs == 1:
        return f"rerank {target} {' '.join(names)}"
    return f"classify {target} {'--pair ' * (len(names) == 2)}{' '.join(names)}"


def _bundle_name(spec: BuildSpec) -> str:
    """The name of a bundle's directory: its questions, its labels, or the fine-tuned model that
    brings them."""
    names = [question.name.replace(" ", "_") for question in spec.questions] or spec.labels
    return "-".join(names).replace("/", "_") or Path(spec.model).resolve().name
