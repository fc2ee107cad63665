"""`trimexport build --backbone`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from trimexport.atomic import check_output

from .console import ConsoleProgress
from .spec_from_options import make_bare_spec

_OF_TASKS = ("recipe", "texts", "keep", "tensorrt_onnx_only")
"""Options that are no fields of a spec, and that a backbone has no use for."""


def build_backbone(options: Mapping[str, Any]) -> None:
    """Build a backbone, as the options of `trimexport build` say, and print what it is."""
    if given := [f"--{name.replace('_', '-')}" for name in _OF_TASKS if options.get(name)]:
        raise click.UsageError(
            f"{', '.join(given)} {'goes' if len(given) == 1 else 'go'} with a task, and --backbone "
            "builds a model without one; give that to `trimexport pack`."
        )
    progress = ConsoleProgress()
    spec = make_bare_spec(options, progress.say)
    target = options["output"] or Path("build") / "backbone"
    check_output(target, options["force"])

    # PyTorch takes its time, so what can be refused without it is
    from trimexport.packs.backbone import build_backbone as run
    from trimexport.packs.backbone import check_backbone_spec
    from trimexport.texts import read_texts

    check_backbone_spec(spec)
    path = options["calibration"]
    calibration = None if path is None else read_texts(path, labels=False)
    with redirect_stdout(sys.stderr):  # of libraries; the results alone are printed
        manifest = run(
            spec, target, force=options["force"], calibration=calibration, progress=progress
        )
    size = sum(file.bytes for file in manifest.files)
    names = [variant.name for variant in manifest.variants]
    if options["as_json"]:
        value = {
            "backbone": str(target),
            "sha256": manifest.sha256,
            "variants": names,
            "bytes": size,
        }
        click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
        return
    click.echo(f"{target}: {size / 1e6:,.1f} MB, {', '.join(names)}, {manifest.sha256[:12]}")
    click.echo(f"try: trimexport pack --backbone {target} --labels LABELS --prompt PROMPT -o FILE")
