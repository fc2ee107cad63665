"""`trimexport bundle`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .console import ConsoleProgress
from .options import BACKBONE, JSON


@click.command()
@BACKBONE
@click.option(
    "--pack",
    "task",
    required=True,
    type=click.Path(path_type=Path),
    help="The file that `trimexport pack` wrote for it.",
)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The bundle's directory."
)
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
@JSON
def bundle(backbone: Path, task: Path, output: Path, force: bool, as_json: bool) -> None:
    """Make a whole bundle of a backbone and a pack, for clients that know no packs.

    The checkpoint is not needed. Prints how far each variant's logits are from the pack's at most.

    \b
    Example:
      trimexport bundle --backbone build/backbone --pack tasks/sentiment.pack -o build/sentiment
    """
    from trimexport.packs.whole_bundle import bundle_of

    made = bundle_of(backbone, task, output, force=force, progress=ConsoleProgress())
    size = sum(file.bytes for file in made.manifest.files)
    if as_json:
        value = {"bundle": str(output), "bytes": size, "apart": made.apart}
        click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
        return
    for name, apart in made.apart.items():
        same = "to the last bit as the pack" if apart == 0 else f"as the pack, up to {apart:.2g}"
        click.echo(f"{name} answers {same}")
    click.echo(f"{output}: {size / 1e6:,.1f} MB, try: trimexport-run classify {output} TEXT")
