"""`trimexport calibrate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

import trimexport
from trimexport.errors import SpecError

from .console import ConsoleProgress
from .options import JSON, TASK

if TYPE_CHECKING:
    from trimexport_runtime import Manifest
    from trimexport_runtime.inputs import Input


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
    help="Even out the answers to these texts, which need no labels: .txt, .csv, .jsonl or "
    ".parquet.",
)
@click.option(
    "--prior",
    metavar="LABEL=SHARE,...",
    help="With --texts: make the labels' mean probabilities these shares, which sum to 1.",
)
@click.option(
    "--question", help="Whose labels, where BUNDLE asks several questions.  [default: all]"
)
@click.option("--undo", is_flag=True, help="Take the bias away again.")
@TASK
@JSON
def calibrate(
    bundle: Path,
    content_free: bool,
    texts: Path | None,
    prior: str | None,
    question: str | None,
    undo: bool,
    task: Path | None,
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
      trimexport calibrate build/guard --texts unlabelled.txt --question toxic
      trimexport calibrate build/sentiment --undo
      trimexport calibrate build/backbone --task tasks/spam.pack --texts inbox.txt
    """
    if sum((content_free, texts is not None, undo)) != 1:
        raise click.UsageError("give one of --content-free, --texts FILE and --undo.")
    if prior is not None and texts is None:
        raise click.UsageError("--prior is the labels' shares among texts; give --texts FILE too.")
    shares = None if prior is None else _shares(prior)
    progress = ConsoleProgress()
    tuned = task or bundle
    if undo:
        engines = trimexport.undo_calibration(
            bundle, question=question, pack=task, progress=progress
        )
        value = {"bundle": str(tuned), "calibration": None, "engines_dropped": list(engines)}
        undone = f"{tuned}: the calibration is undone"
        click.echo(
            json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) if as_json else undone
        )
        return

    from trimexport.texts import read_texts
    from trimexport.tuning.render import calibrated_as_dict, calibrated_lines
    from trimexport_runtime.backbone import manifest_of_either

    manifest, sample = manifest_of_either(bundle, task), None
    if texts is not None:
        sample = read_texts(texts, fields=manifest.prompt.places, labels=False).texts
    if manifest.questions and question is None:
        _calibrate_all(bundle, task, manifest, sample, prior, progress, as_json)
        return
    calibrated = trimexport.calibrate(
        bundle, sample, shares, question=question, pack=task, progress=progress
    )
    if as_json:
        value = calibrated_as_dict(tuned, calibrated)
        click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo("\n".join(calibrated_lines(tuned, calibrated)))


def _calibrate_all(
    bundle: Path,
    task: Path | None,
    manifest: Manifest,
    texts: Sequence[Input] | None,
    prior: str | None,
    progress: ConsoleProgress,
    as_json: bool,
) -> None:
    """Calibrate every question of a bundle."""
    from trimexport.tuning.bias import calibrate_questions
    from trimexport.tuning.render import calibrated_as_dict, calibrated_questions_lines

    if prior is not None:
        names = ", ".join(question.name for question in manifest.questions)
        raise click.UsageError(
            f"--prior is of one question's labels; name the question with --question, one of "
            f"{names}."
        )
    each = calibrate_questions(bundle, texts, pack=task, progress=progress)
    tuned = task or bundle
    if as_json:
        value = {
            "bundle": str(tuned),
            "questions": [calibrated_as_dict(tuned, it) for it in each],
        }
        click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo("\n".join(calibrated_questions_lines(tuned, each)))


def _shares(text: str) -> dict[str, float]:
    """`LABEL=SHARE,LABEL=SHARE` -> each label's share. A label may hold an equals sign.

    Raises:
        click.UsageError: a pair is none.
        SpecError: a label is named twice.
    """
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
                "be given from Python: trimexport.calibrate.)"
            )
        if label in shares:
            raise SpecError(f"the prior names {label!r} twice; give each label one share")
        shares[label] = share
    return shares
