"""Fit a bundle's head to examples; the backbone stays as it was exported. No PyTorch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trimexport.atomic import check_output, staged
from trimexport.bundle.pack_file import check_pack_output
from trimexport.bundle.rewrite import CARD, copy_file, rewrite, write_manifest
from trimexport.bundle.tuned_pack import check_task, read_task, write_fitted
from trimexport.bundle.written_head import Head, put_head
from trimexport.evaluation.known_texts import (
    LEARNED,
    learned_from,
    shown_as_examples,
    write_learned,
)
from trimexport.evaluation.libraries import require_libraries
from trimexport.evaluation.metrics import Scores
from trimexport.parity.model_card import fitted_card
from trimexport.progress import Progress, Silent
from trimexport.texts import Columns, Texts, labelled_texts
from trimexport_runtime import Manifest
from trimexport_runtime.bundle import Fit, Variant
from trimexport_runtime.choice import choose

from .examples import Material, counts, digest, prepare, require_shots
from .hidden_states import read_states
from .regression import FittedHead
from .softmax_only import require_softmax
from .trials import Answers, Compared, CurvePoint, Trial, curve, fit_all, run_trials

REPORT = "reports/fit.json"
FITTING = (
    "fitting puts a head with a logit for each label in the place of it; build the bundle without "
    "--score and fit that one, whose probability of a label ranks texts too"
)


@dataclass(frozen=True)
class Fitted:
    """A new bundle with a fitted head: its directory and manifest, how the head compares, the
    trials with draws, and notes on the texts; `report` is all that as JSON can hold it. `on_test`
    says that it was scored on texts of a test, not on examples."""

    directory: Path
    manifest: Manifest
    compared: Compared
    trials: tuple[Trial, ...]
    notes: tuple[str, ...]
    report: Mapping[str, Any]
    on_test: bool


def fit(
    bundle: Path,
    output: Path,
    examples: Path | Texts,
    *,
    test: Path | Texts | None = None,
    columns: Columns | None = None,
    shots: Sequence[int] = (),
    seeds: int = 5,
    force: bool = False,
    pack: Path | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Write the bundle `output`: `bundle` with a head that is fitted on examples; or the pack
    `output`, where a pack is given.

    Args:
        bundle: where there is a pack, its backbone.
        output: the new bundle's directory, or the new pack; it appears whole or not at all.
        examples: texts with labels, or a `.jsonl`, `.csv` or `.parquet` of them.
        test: the same, to score on; None scores by cross-validation, and draws on what they leave.
        columns: where the files have texts and labels; None takes `text` and `label`.
        shots: how many examples of each label to try, with `seeds` draws of each number. The bundle
            is fitted on all examples all the same, unless it is one number and one seed.
        force: replace a bundle that is there.
        pack: the task whose head is fitted.

    Raises:
        EvaluationError: scikit-learn or matplotlib, the extra `eval`, is not installed.
        SpecError: texts that cannot be read or have other labels, too few examples of a label, or a
            bundle whose score is no softmax.
        OutputError: `output` exists or cannot be written.
        trimexport_runtime.TrimexportRuntimeError: the bundle is damaged, or a text is none.
    """
    require_libraries("fitting")
    progress = progress or Silent()
    if pack is None:
        check_output(output, force)
    else:
        check_pack_output(output, force)
    manifest = read_task(bundle, pack)
    require_softmax(manifest, pack or bundle, FITTING)
    labels, fields = manifest.label_names, manifest.prompt.places
    material = prepare(
        labelled_texts(examples, labels, columns, fields),
        None if test is None else labelled_texts(test, labels, columns, fields),
        labels,
    )
    notes = (*material.notes, *_shown(bundle, manifest, material))
    for note in notes:
        progress.say(f"note: {note}")
    if shots:
        require_shots(material, labels, shots)
    check_task(bundle, manifest, pack, progress)
    variant = choose(manifest)
    answers, rows = _read(bundle, pack, manifest, variant, material, progress)
    trials = _run_trials(answers, shots, seeds, progress) if shots else ()
    drawn = trials[0] if len(trials) == 1 else None
    if drawn is None:
        head, compared = _fit_all(answers, progress)
    else:
        head, compared = drawn.head, drawn.compared
    learned = material.examples if drawn is None else drawn.drawn
    record = _record(learned, head, drawn, variant, labels)
    report = _report(pack or bundle, output, record, compared, trials)
    if pack is not None:
        changed = _refitted(manifest, record)
        write_fitted(pack, output, changed, head.head)
        return Fitted(output, changed, compared, trials, notes, report, on_test=test is not None)
    with progress.bar("writing the bundle", 1) as tick, staged(output, force) as work:
        changed = _write(bundle, work, manifest, head.head, rows, record)
        _write_reports(work, report, curve(trials))
        write_learned(learned.texts, bundle / LEARNED, work / LEARNED)
        tick(1)
    return Fitted(output, changed, compared, trials, notes, report, on_test=test is not None)


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


def _fit_all(answers: Answers, progress: Progress) -> tuple[FittedHead, Compared]:
    with progress.bar(f"fitting on {len(answers.hidden):,} examples", 1) as tick:
        result = fit_all(answers)
        tick(1)
    return result


def _run_trials(
    answers: Answers, shots: Sequence[int], seeds: int, progress: Progress
) -> tuple[Trial, ...]:
    with progress.bar("fitting on draws", len(shots) * seeds) as tick:
        return run_trials(answers, shots, seeds, tick)


def _read(
    bundle: Path,
    pack: Path | None,
    manifest: Manifest,
    variant: Variant,
    material: Material,
    progress: Progress,
) -> tuple[Answers, int]:
    """Hidden states and logits of every text, and how many rows the graph computes for each."""
    test = () if material.test is None else material.test.texts
    count = len(material.examples.texts)
    texts = (*material.examples.texts, *test)
    states = read_states(bundle, manifest, variant, texts, progress, pack)
    hidden, logits = states.hidden.astype(np.float64), states.logits.astype(np.float64)
    if manifest.calibration is not None:
        logits -= np.array(manifest.calibration.bias)
    answers = Answers(
        material=material,
        hidden=hidden[:count],
        logits=logits[:count],
        test_hidden=hidden[count:] if test else None,
        test_logits=logits[count:] if test else None,
        start=states.head,
        labels=manifest.label_names,
    )
    return answers, states.rows


def _record(
    learned: Texts, head: FittedHead, drawn: Trial | None, variant: Variant, labels: Sequence[str]
) -> Fit:
    """What the manifest says of the fit."""
    right = head.held_out.argmax(axis=1) == learned.places(labels)
    return Fit(
        examples=counts(learned, labels),
        examples_sha256=digest(learned),
        shots=None if drawn is None else drawn.shots,
        seed=None if drawn is None else drawn.seed,
        strength=head.strength,
        accuracy=float(right.mean()),
        folds=head.folds,
        variant=variant.name,
    )


def _write(
    bundle: Path, work: Path, manifest: Manifest, head: Head, rows: int, record: Fit
) -> Manifest:
    """The bundle with the head, and without what was measured of the old one."""
    changed = rewrite(bundle, work, manifest, partial(put_head, head=head, rows=rows), copy_file)
    changed = _refitted(changed, record)
    (work / CARD).write_text(fitted_card(changed, record), encoding="utf-8")
    write_manifest(changed, work)
    return changed


def _refitted(manifest: Manifest, record: Fit) -> Manifest:
    """The manifest of what has a fitted head, without what was measured of the old one."""
    return replace(
        manifest,
        variants=tuple(replace(variant, parity=None) for variant in manifest.variants),
        label_mass=None,
        calibration=None,
        fit=record,
    )


def _write_reports(work: Path, report: dict[str, Any], points: Sequence[CurvePoint]) -> None:
    target = work / REPORT
    target.parent.mkdir()
    target.write_text(
        json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    if points:
        from .curve_plot import draw_curve  # here, for it needs matplotlib

        draw_curve(points, target)


def _report(
    bundle: Path, output: Path, record: Fit, compared: Compared, trials: Sequence[Trial]
) -> dict[str, Any]:
    """The fit as JSON can hold it."""
    return {
        "bundle": str(bundle),
        "output": str(output),
        "fit": asdict(record),
        "scored_texts": compared.fitted.texts,
        **_scores(compared),
        "curve": [asdict(point) for point in curve(trials)],
        "trials": [
            {
                "shots": trial.shots,
                "seed": trial.seed,
                "strength": trial.head.strength,
                "scored_texts": trial.compared.fitted.texts,
                **_scores(trial.compared),
            }
            for trial in trials
        ],
    }


def _scores(compared: Compared) -> dict[str, Any]:
    value: dict[str, Any] = {"majority": compared.majority}
    for name in ("zero_shot", "calibrated", "fitted"):
        scores: Scores = getattr(compared, name)
        value[name] = {
            "accuracy": scores.accuracy,
            "interval": list(scores.interval),
            "macro_f1": scores.macro_f1,
        }
    return value
