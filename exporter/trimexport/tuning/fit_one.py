"""The head that examples of one question give. Nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimexport.evaluation.known_texts import learned_from, shown_as_examples
from trimexport.evaluation.metrics import Scores
from trimexport.progress import Progress
from trimexport.texts import Texts
from trimexport_runtime import Manifest
from trimexport_runtime.bundle import Fit, Variant
from trimexport_runtime.questions import view_of

from .examples import Material, counts, digest, prepare, require_shots
from .hidden_states import read_states
from .per_question import bias_of_all
from .regression import FittedHead
from .trials import Answers, Compared, CurvePoint, Trial, curve, fit_all, run_trials


@dataclass(frozen=True)
class Task:
    """A question of a bundle, None for the only one, with what its head is to be fitted to."""

    question: str | None
    material: Material
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """The head that a task gives: what it learned from, the record of it, how it compares, and the
    trials with draws. `rows` is how many rows of hidden states the graph computes for a text."""

    task: Task
    head: FittedHead
    learned: Texts
    record: Fit
    compared: Compared
    trials: tuple[Trial, ...]
    rows: int


def make_task(
    known: Collection[str],
    manifest: Manifest,
    question: str | None,
    examples: Texts,
    test: Texts | None,
    shots: Sequence[int],
) -> Task:
    """Prepare the examples of one question.

    Args:
        known: the SHA-256 of texts that heads were fitted on before.

    Raises:
        SpecError: a label has too few, for a regression or for the shots, or no text of the test
            is left.
    """
    view, _ = view_of(manifest, question)
    material = prepare(examples, test, view.label_names)
    if shots:
        require_shots(material, view.label_names, shots)
    of = "" if question is None else f"{question}: "
    notes = (*material.notes, *_known(known, manifest, material))
    return Task(question, material, tuple(f"{of}{note}" for note in notes))


def find_head(
    bundle: Path,
    pack: Path | None,
    manifest: Manifest,
    variant: Variant,
    task: Task,
    shots: Sequence[int],
    seeds: int,
    progress: Progress,
) -> Found:
    """Read the hidden states of a task's texts, and fit a head to them: on all examples, or on the
    draw where it is one number of shots and one seed."""
    answers, rows = _read(bundle, pack, manifest, variant, task, progress)
    trials = _run_trials(answers, shots, seeds, progress) if shots else ()
    drawn = trials[0] if len(trials) == 1 else None
    if drawn is None:
        head, compared = _fit_all(answers, progress)
    else:
        head, compared = drawn.head, drawn.compared
    learned = task.material.examples if drawn is None else drawn.drawn
    record = _record(learned, head, drawn, variant, answers.labels)
    return Found(task, head, learned, record, compared, trials, rows)


def report_of(found: Found) -> dict[str, Any]:
    """What a fit came to, as JSON can hold it."""
    return {
        "fit": asdict(found.record),
        "scored_texts": found.compared.fitted.texts,
        **_scores(found.compared),
        "curve": [asdict(point) for point in points_of(found)],
        "trials": [
            {
                "shots": trial.shots,
                "seed": trial.seed,
                "strength": trial.head.strength,
                "scored_texts": trial.compared.fitted.texts,
                **_scores(trial.compared),
            }
            for trial in found.trials
        ],
    }


def points_of(found: Found) -> tuple[CurvePoint, ...]:
    """The data-efficiency curve of the trials."""
    return curve(found.trials)


def _known(known: Collection[str], manifest: Manifest, material: Material) -> list[str]:
    """Notes on scored texts that the bundle knows with their labels: by its prompt, or by a head
    that was fitted before."""
    scored = set((material.test or material.examples).texts)
    found = {
        "stand in the bundle's prompt": shown_as_examples(manifest.prompt, scored),
        "are what the bundle's head was fitted on before": learned_from(known, scored),
    }
    return [
        f"{len(texts):,} texts that are scored {what}; judge it by others"
        for what, texts in found.items()
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
    task: Task,
    progress: Progress,
) -> tuple[Answers, int]:
    """Hidden states and logits of every text at the question's answer, and how many rows the graph
    computes for each."""
    material, (view, part) = task.material, view_of(manifest, task.question)
    test = () if material.test is None else material.test.texts
    count = len(material.examples.texts)
    texts = (*material.examples.texts, *test)
    states = read_states(bundle, manifest, variant, texts, progress, task.question, pack)
    hidden, logits = states.hidden.astype(np.float64), states.logits.astype(np.float64)
    if (bias := bias_of_all(manifest)) is not None:
        logits -= bias
    logits = logits[:, part]
    answers = Answers(
        material=material,
        hidden=hidden[:count],
        logits=logits[:count],
        test_hidden=hidden[count:] if test else None,
        test_logits=logits[count:] if test else None,
        start=states.head,
        labels=view.label_names,
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
