"""`trimexport verify`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from trimexport.spec import parse_names

from .console import ConsoleProgress
from .options import JSON, MOVED_ADAPTER, MOVED_TOKENIZER, TEXTS


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@TEXTS
@click.option("--model", help="Where the checkpoint is now, if it has moved since the build.")
@MOVED_ADAPTER
@MOVED_TOKENIZER
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
    tokenizer: str | None,
    backends: str,
    optimum_python: str,
    as_json: bool,
) -> None:
    """Compare every variant of BUNDLE with the untrimmed PyTorch model.

    Prints a table and writes reports/parity.html into the bundle. Exits 1 if a variant is outside
    its tolerance, naming the texts, unless the build was told to keep it; or if one did not run on
    a backend that was named. With all, what cannot run here is shown as not run.

    \b
    Example:
      trimexport verify build/sentiment --texts texts.txt
      trimexport verify build/sentiment --backends all --optimum-python optimum/bin/python
    """
    if model is not None:
        from trimexport.source.hub import local_directory

        local_directory(model)  # refuses what it cannot be

    from trimexport.parity.backends import BACKENDS
    from trimexport.parity.json_report import as_dict
    from trimexport.parity.render import table
    from trimexport.parity.verdict import require
    from trimexport.texts import read_texts
    from trimexport.verification import verify as run
    from trimexport_runtime import read_manifest

    names = BACKENDS if backends == "all" else parse_names(backends)
    if not set(names) <= set(BACKENDS):
        raise click.UsageError(f"--backends takes {', '.join(BACKENDS)}, or all.")
    progress = ConsoleProgress()
    sample = None
    if texts is not None:
        fields = read_manifest(bundle).prompt.places
        sample = read_texts(texts, fields=fields, say=progress.say)
    report = run(
        bundle,
        sample=sample,
        model=model,
        adapter=adapter,
        tokenizer=tokenizer,
        backends=names,
        optimum=optimum_python,
        progress=progress,
    )
    if as_json:
        click.echo(json.dumps(as_dict(report), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(table(report))
    require(report, () if backends == "all" else names)
