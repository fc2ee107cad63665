"""`trimexport pack`."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from trimexport.spec import parse_names
from trimexport_runtime.backbone_manifest import read_backbone_manifest

from .console import ConsoleProgress
from .options import BACKBONE, JSON, TEXTS, TRUNCATE, names_a_classifier
from .spec_from_options import make_spec


@click.command()
@BACKBONE
@click.option(
    "--recipe",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A TOML file that names the task; options given beside it take precedence.",
)
@names_a_classifier
@click.option(
    "--max-tokens",
    type=int,
    help="Most tokens of prompt and text.  [default: the backbone's]",
)
@TRUNCATE
@TEXTS
@click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts like those to come, without labels, on which the mean error of int8 and int4 is "
    "measured; otherwise some that ship.",
)
@click.option("--keep", metavar="VARIANTS", help="Variants that may be outside their tolerance.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The pack's file."
)
@click.option("--force", is_flag=True, help="Replace a pack that is there.")
@JSON
def pack(
    backbone: Path,
    texts: Path | None,
    calibration: Path | None,
    keep: str | None,
    output: Path,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Write what a task adds to a backbone, and prove it against the untrimmed model.

    The checkpoint is the one that the backbone was made from; --model says where it is now. Exits
    1, without a pack, if a variant of the backbone is outside its tolerance.

    \b
    Example:
      trimexport pack --backbone build/backbone --labels positive,negative \\
          --prompt "Review: {text}\\nSentiment:" -o tasks/sentiment.pack
    """
    progress = ConsoleProgress()
    source = read_backbone_manifest(backbone).source
    at_hub = given.get("model") is None and source.directory is None
    where = {"model": given.get("model") or source.directory or source.model}
    if at_hub:
        where["revision"] = given.get("revision") or source.revision or ""
    spec = make_spec({**given, **where}, progress.say)

    # PyTorch takes its time, so what can be refused without it is
    from trimexport.bundle.pack_file import check_pack_output
    from trimexport.packs.pack import pack as run
    from trimexport.parity.json_report import as_dict
    from trimexport.parity.render import table
    from trimexport.prompt.questions import text_places
    from trimexport.texts import read_texts

    check_pack_output(output, force)
    fields = text_places(spec)
    with redirect_stdout(sys.stderr):  # of libraries; the results alone are printed
        packed = run(
            backbone,
            spec,
            output,
            force=force,
            sample=None if texts is None else read_texts(texts, fields=fields, say=progress.say),
            calibration=None
            if calibration is None
            else read_texts(calibration, fields=fields, labels=False),
            keep=() if keep is None else parse_names(keep),
            progress=progress,
        )
    if as_json:
        value = {"pack": str(output), "notes": list(packed.notes), **as_dict(packed.report)}
        click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
        return
    click.echo(table(packed.report))
    size = output.stat().st_size
    click.echo(f"\n{output}: {size / 1e3:,.1f} kB, {'; '.join(packed.notes)}")
    click.echo(f"try: trimexport-run classify {backbone} --task {output} TEXT")
