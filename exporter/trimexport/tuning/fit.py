"""Fit a bundle's head to examples; the backbone stays as it was exported. No PyTorch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trimexport.atomic import check_output, staged
from trimexport.bundle.rewrite import CARD, check_bundle, copy_file, rewrite, write_manifest
from trimexport.bundle.written_head import Head, put_head
from trimexport.evaluation.data import Labelled
from trimexport.evaluation.metrics import Scores
from trimexport.parity.model_card import fitted_card
from trimexport.progress import Progress, Silent
from trimexport.prompt.few_shot import shown_as_examples
from trimexport_runtime import Manifest, read_manifest
from trimexport_runtime.bundle import Fit, Variant
from trimexport_runtime.choice import choose

from .curve_plot import draw_curve
from .examples import (
    LEARNED,
    Material,
    counts,
    digest,
    learned_from,
    prepare,
    require_shots,
    write_learned,
)
from .hidden_states import read_states
from .regression import Found
from .trials import Compared, Known, Point, Trial, curve, fit_all, run_trials

REPORT = "reports/fit.json"


@dataclass(frozen=True)
class Fitted:
    """The new bundle's manifest, how its head compares, the trials with draws, and notes on the
    data."""

    manifest: Manifest
    compared: Compared
    trials: tuple[Trial, ...]
    notes: tuple[str, ...]


def fit(
    bundle: Path,
    output: Path,
    examples: Labelled,
    *,
    test: Labelled | None = None,
    shots: Sequence[int] = (),
    seeds: int = 5,
    force: bool = False,
    progress: Progress | None = None,
) -> Fitted:
    """Write the bundle `output`: `bundle` with a head that was fitted on the examples.

    Args:
        test: texts to score on; None scores by cross-validation, and draws on what they left.
        shots: how many examples of each label to try, with `seeds` draws each. The bundle is
            fitted on all examples all the same, unless it is one number and one seed.

    Raises:
        SpecError: too few examples of a label.
        OutputError: `output` exists or cannot be written.
        trimexport_runtime.TrimexportRuntimeError: the bundle is damaged, or a text is none.
    """
    progress = progress or Silent()
    check_output(output, force)
    manifest = read_manifest(bundle)
    material = prepare(examples, test, manifest.label_names)
    notes = (*material.notes, *_shown(bundle, manifest, material))
    for note in notes:
        progress.say(f"note: {note}")
    if shots:
        require_shots(material, manifest.label_names, shots)
    check_bundle(bundle, manifest, progress)
    variant = choose(manifest)
    known, rows = _read(bundle, manifest, variant, material, progress)
    trials = _run_trials(known, shots, seeds, progress) if shots else ()
    drawn = trials[0] if len(trials) == 1 else None
    if drawn is None:
        found, compared = _fit_all(known, progress)
    else:
        found, compared = drawn.found, drawn.compared
    record = _record(material.examples, found, drawn, variant, manifest)
    report = _report(bundle, output, record, compared, trials)
    with progress.bar("writing the bundle", 1) as tick, staged(output, force) as work:
        changed = _write(bundle, work, manifest, found.head, rows, record)
        _write_reports(work, report, curve(trials))
        learned = material.examples if drawn is None else drawn.drawn
        write_learned(learned.texts, bundle / LEARNED, work / LEARNED)
        tick(1)
    return Fitted(changed, compared, trials, notes)


def _shown(bundle: Path, manifest: Manifest, material: Material) -> list[str]:
    """Notes on scored texts that the bundle knows with their labels: by its prompt, or by a head
    that was fitted before."""
    scored = set((material.test or material.examples).texts)
    known = {
        "stand in the bundle's prompt": shown_as_examples(manifest.prompt, scored),
        "are what the bundle's head was fitted on before": learned_from(bundle / LEARNED, scored),
    }
    return [
        f"{len(texts):,} texts that are scored {what}; judge it by others"
        for what, texts in known.items()
        if texts
    ]


def _fit_all(known: Known, progress: Progress) -> tuple[Found, Compared]:
    with progress.bar(f"fitting on {len(known.hidden):,} examples", 1) as tick:
        result = fit_all(known)
        tick(1)
    return result


def _run_trials(
    known: Known, shots: Sequence[int], seeds: int, progress: Progress
) -> tuple[Trial, ...]:
    with progress.bar("fitting on draws", len(shots) * seeds) as tick:
        return run_trials(known, shots, seeds, tick)


def _read(
    bundle: Path, manifest: Manifest, variant: Variant, material: Material, progress: Progress
) -> tuple[Known, int]:
    """Hidden states and logits of every text; and the graph's rows for each text."""
    test = () if material.test is None else material.test.texts
    count = len(material.examples.texts)
    texts = (*material.examples.texts, *test)
    states = read_states(bundle, manifest, variant, texts, progress)
    hidden, logits = states.hidden.astype(np.float64), states.logits.astype(np.float64)
    if manifest.calibration is not None:
        logits -= np.array(manifest.calibration.bias)
    known = Known(
        material=material,
        hidden=hidden[:count],
        logits=logits[:count],
        test_hidden=hidden[count:] if test else None,
        test_logits=logits[count:] if test else None,
        start=states.head,
        labels=manifest.label_names,
    )
    return known, states.rows


def _record(
    examples: Labelled, found: Found, drawn: Trial | None, variant: Variant, manifest: Manifest
) -> Fit:
    """For the manifest."""
    learned = examples if drawn is None else drawn.drawn
    right = found.held_out.argmax(axis=1) == learned.gold
    return Fit(
        examples=counts(learned, manifest.label_names),
        examples_sha256=digest(learned, manifest.label_names),
        shots=None if drawn is None else drawn.shots,
        seed=None if drawn is None else drawn.seed,
        strength=found.strength,
        accuracy=float(right.mean()),
        folds=found.folds,
        variant=variant.name,
    )


def _write(
    bundle: Path, work: Path, manifest: Manifest, head: Head, rows: int, record: Fit
) -> Manifest:
    """The bundle with the head, and without what was measured of the old one."""
    changed = rewrite(bundle, work, manifest, partial(put_head, head=head, rows=rows), copy_file)
    changed = replace(
        changed,
        variants=tuple(replace(it, parity=None) for it in changed.variants),
        label_mass=None,
        calibration=None,
        fit=record,
    )
    (work / CARD).write_text(fitted_card(changed, record), encoding="utf-8")
    write_manifest(changed, work)
    return changed


def _write_reports(work: Path, report: dict[str, Any], points: Sequence[Point]) -> None:
    target = work / REPORT
    target.parent.mkdir()
    target.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if points:
        draw_curve(points, target)


def _report(
    bundle: Path, output: Path, record: Fit, compared: Compared, trials: Sequence[Trial]
) -> dict[str, Any]:
    """All of it for a program."""
    return {
        "bundle": str(bundle),
        "output": str(output),
        "fit": asdict(record),
        "scored_texts": compared.fitted.texts,
        **_scores(compared),
        "curve": [asdict(point) for point in curve(trials)],
        "trials": [
            {
                "shots": it.shots,
                "seed": it.seed,
                "strength": it.found.strength,
                "scored_texts": it.compared.fitted.texts,
                **_scores(it.compared),
            }
            for it in trials
        ],
    }


def _scores(compared: Compared) -> dict[str, Any]:
    found: dict[str, Any] = {"majority": compared.majority}
    for name in ("zero_shot", "calibrated", "fitted"):
        scores: Scores = getattr(compared, name)
        found[name] = {
            "accuracy": scores.accuracy,
            "interval": list(scores.interval),
            "macro_f1": scores.macro_f1,
        }
    return found
