"""`trimexport calibrate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trimexport.errors import SpecError

from .console import ConsoleProgress
from .options import JSON

if TYPE_CHECKING:
    from trimexport.tuning.bias import Calibrated


@click.command("calibrate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--content-free",
    is_flag=True,
    help='Even out the answers to texts that say nothing: "N/A", "[MASK]" and an empty one.',
)
@click.option(
    "--texts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Even out the answers to these texts, which need no labels: .txt, .csv or .jsonl.",
)
@click.option(
    "--prior",
    metavar="LABEL=SHARE,...",
    help="With --texts: make the labels' mean probabilities these shares, which sum to 1.",
)
@click.option("--undo", is_flag=True, help="Take the bias away again.")
@JSON
def calibrate(
    bundle: Path,
    content_free: bool,
    texts: Path | None,
    prior: str | None,
    undo: bool,
    as_json: bool,
) -> None:
    """Add a bias per label behind the logits of BUNDLE, in every variant's graph.

    A model prefers some labels whatever the text says. The bias takes that preference away, or puts
    a known one in its place. It is recorded in the manifest, replaces an earlier one, and can be
    undone. The weights' files are not touched.

    \b
    Example:
      trimexport calibrate build/sentiment --content-free
      trimexport calibrate build/sentiment --texts unlabelled.txt
      trimexport calibrate build/spam --texts inbox.txt --prior spam=0.13,ham=0.87
      trimexport calibrate build/sentiment --undo
    """
    if sum((content_free, texts is not None, undo)) != 1:
        raise click.UsageError("give one of --content-free, --texts FILE and --undo.")
    if prior is not None and texts is None:
        raise click.UsageError("--prior is the labels' shares among texts; give --texts FILE too.")
    shares = None if prior is None else _shares(prior)

    from trimexport.texts import read_lines
    from trimexport.tuning import bias as calibrating

    progress = ConsoleProgress()
    if undo:
        engines = calibrating.undo(bundle, progress)
        _print_undone(bundle, engines, progress, as_json=as_json)
        return
    asked = None if texts is None else [line.text for line in read_lines(texts)]
    found = calibrating.calibrate(bundle, asked, shares, progress)
    _tell_engines(bundle, found.engines, progress)
    if as_json:
        click.echo(json.dumps(_as_dict(bundle, found), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(bundle, found)))


def _shares(text: str) -> dict[str, float]:
    """LABEL=SHARE pairs; a label may hold an equals sign."""
    shares: dict[str, float] = {}
    for pair in text.split(","):
        label, _, number = (part.strip() for part in pair.rpartition("="))
        try:
            share = float(number)
        except ValueError:
            label = ""
        if not label:
            raise click.UsageError(
                f"--prior is LABEL=SHARE,LABEL=SHARE; {pair!r} is none. (Labels with a comma can "
                "be given from Python: trimexport.tuning.calibrating.calibrate.)"
            )
        if label in shares:
            raise SpecError(f"the prior names {label!r} twice; give each label one share")
        shares[label] = share
    return shares


def _tell_engines(bundle: Path, engines: tuple[str, ...], progress: ConsoleProgress) -> None:
    if engines:
        progress.say(
            f"the TensorRT engine of {', '.join(engines)} was of the graph from before and is "
            f"gone; build it again with `trimexport-run build-engines {bundle}`"
        )


def _print_undone(
    bundle: Path, engines: tuple[str, ...], progress: ConsoleProgress, *, as_json: bool
) -> None:
    _tell_engines(bundle, engines, progress)
    if as_json:
        value = {"bundle": str(bundle), "calibration": None, "engines_dropped": list(engines)}
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        click.echo(f"{bundle}: the calibration is undone")


def _as_dict(bundle: Path, found: Calibrated) -> dict[str, object]:
    labels, calibration = found.manifest.label_names, found.calibration
    return {
        "bundle": str(bundle),
        "method": calibration.method,
        "texts": calibration.texts,
        "variant": calibration.variant,
        "bias": dict(zip(labels, calibration.bias, strict=True)),
        "prior": calibration.prior,
        "residual": found.residual,
        "mean_probabilities_before": dict(zip(labels, found.before.tolist(), strict=True)),
        "mean_probabilities_after": dict(zip(labels, found.after.tolist(), strict=True)),
        "answers_changed": found.changed,
        "engines_dropped": list(found.engines),
    }


def _lines(bundle: Path, found: Calibrated) -> list[str]:
    calibration = found.calibration
    rows = zip(
        found.manifest.label_names,
        calibration.bias,
        found.before.tolist(),
        found.after.tolist(),
        strict=True,
    )
    lines = [
        f"{'label':<24} {'bias':>9} {'mean probability before':>24} {'after':>9}",
        *(f"{name:<24} {bias:>+9.4f} {old:>24.2%} {new:>9.2%}" for name, bias, old, new in rows),
        "",
        f"{calibration.method} on {calibration.texts:,} texts with {calibration.variant}; "
        f"{found.changed:,} of their answers change",
    ]
    if found.residual is not None:
        lines.append(f"the prior is met to within {found.residual:.1e}")
    return [*lines, f"{bundle}: calibrated; --undo takes the bias away"]
