"""How good fitted heads are: fits on all examples and on draws, scored on the same texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trimexport.bundle.written_head import Head
from trimexport.evaluation.metrics import Scores, score
from trimexport.numerics import Floats, Places, softmax
from trimexport.texts import Texts

from .bias_methods import even_out
from .examples import Material, drawn_places, fold_numbers, subset
from .regression import FittedHead, fit_head, logits_of


@dataclass(frozen=True)
class Answers:
    """What a bundle's graph makes of the examples, and of the test's texts if there are any:
    `hidden` float64 [n, hidden], and `logits` [n, labels] without a calibration. `start` is the
    bundle's head."""

    material: Material
    hidden: Floats
    logits: Floats
    test_hidden: Floats | None
    test_logits: Floats | None
    start: Head
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """Scores on the same texts: of the bundle as it was, of the same with a bias that evens out its
    answers to the examples, and of the fitted head."""

    zero_shot: Scores
    calibrated: Scores
    fitted: Scores

    @property
    def majority(self) -> float:
        """The accuracy of always answering the most frequent label."""
        return max(label.support for label in self.fitted.labels) / self.fitted.texts


@dataclass(frozen=True)
class Trial:
    """A head that was fitted on a draw of `shots` examples of each label."""

    shots: int
    seed: int
    drawn: Texts
    head: FittedHead
    compared: Compared


def fit_all(answers: Answers) -> tuple[FittedHead, Compared]:
    """Fit a head on every example. It is scored on the test; without one, by the answers that
    cross-validation gives the examples."""
    labels, examples = answers.labels, answers.material.examples
    gold = examples.places(labels)
    head = fit_head(answers.hidden, gold, answers.start, fold_numbers(examples, labels))
    bias = even_out(answers.logits)
    test = _test(answers)
    if test is None:
        return head, _compare(gold, answers.logits, bias, head.held_out, labels)
    hidden, logits, gold = test
    return head, _compare(gold, logits, bias, logits_of(head.head, hidden), labels)


def run_trials(
    answers: Answers, shots: Sequence[int], seeds: int, advance: Callable[[int], None]
) -> tuple[Trial, ...]:
    """Fit and score a head for each number of shots and each seed. Without a test, the trials of a
    seed are scored on the examples that its largest draw leaves.

    Args:
        advance: called with the number of fits done.
    """
    trials = []
    for number in shots:
        for seed in range(seeds):
            trials.append(_trial(answers, number, seed, max(shots)))
            advance(1)
    return tuple(trials)


def _trial(answers: Answers, shots: int, seed: int, most: int) -> Trial:
    labels, examples = answers.labels, answers.material.examples
    places = drawn_places(examples, labels, shots, seed)
    drawn = subset(examples, places)
    head = fit_head(
        answers.hidden[places], drawn.places(labels), answers.start, fold_numbers(drawn, labels)
    )
    test = _test(answers)
    if test is None:
        rest = _rest(len(examples.texts), drawn_places(examples, labels, most, seed))
        test = answers.hidden[rest], answers.logits[rest], examples.places(labels)[rest]
    hidden, logits, gold = test
    bias = even_out(answers.logits[places])
    compared = _compare(gold, logits, bias, logits_of(head.head, hidden), labels)
    return Trial(shots, seed, drawn, head, compared)


def _test(answers: Answers) -> tuple[Floats, Floats, Places] | None:
    """Hidden states, logits and right answers of the test, if there is one."""
    test = answers.material.test
    if test is None or answers.test_hidden is None or answers.test_logits is None:
        return None
    return answers.test_hidden, answers.test_logits, test.places(answers.labels)


def _rest(count: int, places: Places) -> Places:
    """The places of `count` that are none of `places`."""
    return np.setdiff1d(np.arange(count), places)


def _compare(
    gold: Places, logits: Floats, bias: Floats, fitted: Floats, labels: Sequence[str]
) -> Compared:
    before, calibrated, after = (
        score(gold, softmax(each), labels) for each in (logits, logits + bias, fitted)
    )
    return Compared(before, calibrated, after)


@dataclass(frozen=True)
class CurvePoint:
    """What the trials with a number of shots come to: mean, standard deviation (None of a single
    one) and range of the accuracy, the mean macro F1, and the mean accuracies on the same texts
    without fitting."""

    shots: int
    seeds: int
    accuracy: float
    deviation: float | None
    least: float
    most: float
    macro_f1: float
    zero_shot: float
    calibrated: float


def curve(trials: Sequence[Trial]) -> tuple[CurvePoint, ...]:
    """The data-efficiency curve, the fewest shots first."""
    return tuple(
        _point([trial for trial in trials if trial.shots == shots])
        for shots in sorted({trial.shots for trial in trials})
    )


def _point(trials: Sequence[Trial]) -> CurvePoint:
    compared = [trial.compared for trial in trials]
    accuracies = np.array([each.fitted.accuracy for each in compared])
    return CurvePoint(
        shots=trials[0].shots,
        seeds=len(trials),
        accuracy=float(accuracies.mean()),
        deviation=float(accuracies.std(ddof=1)) if len(trials) > 1 else None,
        least=float(accuracies.min()),
        most=float(accuracies.max()),
        macro_f1=float(np.mean([each.fitted.macro_f1 for each in compared])),
        zero_shot=float(np.mean([each.zero_shot.accuracy for each in compared])),
        calibrated=float(np.mean([each.calibrated.accuracy for each in compared])),
    )
