"""`trimexport-run`: classify texts with a bundle, and show what a bundle is.

Results go to standard output, everything else to standard error. Exit status: 0 done, 1 an
expected failure (one line says which), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import errno
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from . import __version__
from .backbone import task_pack
from .backbone_info import backbone_json, backbone_text, task_json, task_text
from .backbone_manifest import is_backbone, read_backbone_manifest
from .bundle import read_manifest
from .classify_command import classify
from .errors import BundleError, TrimexportRuntimeError
from .explain_command import explain_text
from .integrity import check_engine, check_files
from .options import TASK
from .pack import check_pack
from .progress import Progress, discard_stdout, prepare_stdout
from .render import info_json, info_text
from .rerank_command import rerank
from .server.command import serve


class _Commands(click.Group):
    """A group whose commands end in one line for every failure that is foreseen."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TrimexportRuntimeError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted", err=True)
            ctx.exit(130)
        except OSError as error:  # of standard output, since files are read elsewhere
            discard_stdout()
            if error.errno == errno.EPIPE:
                ctx.exit(1)
            reason = error.strerror or error
            raise click.ClickException(f"cannot write the results: {reason}") from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trimexport-run")
def main() -> None:
    """Run text classifiers that trimexport compiled.

    \b
    Example:
      trimexport-run classify build/sentiment "a gorgeous, witty, seductive movie"
    """


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@TASK
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--check", is_flag=True, help="Compare the SHA-256 of every file.")
def info(bundle: Path, task: Path | None, as_json: bool, check: bool) -> None:
    """Show a bundle's labels, prompt, source and variants, and what would run it here; or those of
    a task on a backbone, or what a backbone is.

    \b
    Example:
      trimexport-run info build/sentiment --check
      trimexport-run info build/backbone --task tasks/spam.pack
    """
    if task is not None or is_backbone(bundle):
        _backbone_info(bundle, task, as_json, check)
        return
    manifest = read_manifest(bundle)
    if check:
        total = sum(entry.bytes for entry in manifest.files)
        engines = [variant.engine for variant in manifest.variants if variant.engine is not None]
        total += sum(engine.bytes for engine in engines)
        with Progress("checking files:", total) as progress:
            check_files(bundle, manifest, hashes=True, advance=progress.advance)
            for engine in engines:
                check_engine(bundle, engine, hashes=True, advance=progress.advance)
    prepare_stdout(as_json)
    if as_json:
        click.echo(info_json(bundle, manifest, checked=check))
    else:
        click.echo(info_text(bundle, manifest, checked=check))


def _backbone_info(directory: Path, task: Path | None, as_json: bool, check: bool) -> None:
    """Show a backbone, or a task on it."""
    manifest = read_backbone_manifest(directory)
    pack = None if task is None else task_pack(task, directory)
    if check:
        total = sum(entry.bytes for entry in manifest.files)
        with Progress("checking files:", total) as progress:
            check_files(directory, manifest, hashes=True, advance=progress.advance)
        if task is not None:
            check_pack(task)
    prepare_stdout(as_json)
    if pack is None:
        show = backbone_json if as_json else backbone_text
        click.echo(show(directory, manifest, checked=check))
    else:
        tell = task_json if as_json else task_text
        click.echo(tell(directory, manifest, pack, checked=check))


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--variant", help="The one variant to build for.  [default: all that are for TensorRT]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def build_engines(bundle: Path, variant: str | None, as_json: bool) -> None:
    """Build TensorRT engines for this machine's GPU from a bundle's graphs, and keep them in it.

    They take the place of engines that were built elsewhere. Needs TensorRT and cuda-python, and no
    PyTorch.

    \b
    Example:
      trimexport-run build-engines build/sentiment
    """
    from .engine import build_engine, candidates, require_builder

    manifest = read_manifest(bundle)
    possible = candidates(manifest)
    chosen = [item for item in possible if variant is None or item.name == variant]
    if not chosen:
        names = ", ".join(item.name for item in possible)
        raise BundleError(f'the bundle has no "{variant}" for TensorRT; it has: {names}')
    require_builder()
    for item in chosen:
        with Progress(f"building the engine of {item.name}") as progress:
            progress.show()
            try:
                manifest = build_engine(bundle, item)
            except OSError as error:
                raise BundleError(f"{bundle} cannot be written ({error})") from None
    prepare_stdout(as_json)
    built = {item.name for item in chosen}
    engines = [item.engine for item in manifest.variants if item.engine and item.name in built]
    if as_json:
        click.echo(json.dumps({"engines": [asdict(engine) for engine in engines]}, allow_nan=False))
    else:
        for engine in engines:
            click.echo(f"{bundle / engine.file}: TensorRT {engine.tensorrt}, {engine.gpu}")


main.add_command(classify)
main.add_command(explain_text)
main.add_command(rerank)
main.add_command(serve)
