"""How good a head is that was fitted on so many examples: draws, fits and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trimexport.bundle.written_head import Head
from trimexport.evaluation.data import Labelled
from trimexport.evaluation.metrics import Scores, score
from trimexport.numerics import Floats, softmax

from .bias_methods import even_out
from .examples import Material, Places, draw, folds, subset
from .regression import Found, fit_head, logits_of


@dataclass(frozen=True)
class Known:
    """What the graph makes of the examples, and of the test's texts if there are any: `hidden`
    float64 [n, hidden] and `logits` [n, labels], without a calibration; and the old head."""

    material: Material
    hidden: Floats
    logits: Floats
    test_hidden: Floats | None
    test_logits: Floats | None
    start: Head
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """Scores on the same texts: of the bundle as it was, calibrated on the texts of the examples
    without their labels, and with the fitted head."""

    zero_shot: Scores
    calibrated: Scores
    fitted: Scores

    @property
    def majority(self) -> float:
        """The accuracy of always answering the most frequent label."""
        return max(it.support for it in self.fitted.labels) / self.fitted.texts


@dataclass(frozen=True)
class Trial:
    """A head that was fitted on a draw of `shots` examples of each label."""

    shots: int
    seed: int
    drawn: Labelled
    found: Found
    compared: Compared


def fit_all(known: Known) -> tuple[Found, Compared]:
    """A head from every example, scored on the test; where there is none, by the answers that
    cross-validation gave the examples."""
    examples = known.material.examples
    found = fit_head(known.hidden, examples.gold, known.start, folds(examples))
    bias = even_out(known.logits)
    if known.test_hidden is None or known.test_logits is None or known.material.test is None:
        logits, gold, fitted = known.logits, examples.gold, found.held_out
    else:
        logits, gold = known.test_logits, known.material.test.gold
        fitted = logits_of(found.head, known.test_hidden)
    return found, _compare(gold, logits, bias, fitted, known.labels)


def run_trials(
    known: Known, shots: Sequence[int], seeds: int, advance: Callable[[int], None]
) -> tuple[Trial, ...]:
    """A trial for each number of shots and each seed. Where there is no test, those of a seed are
    scored on the examples that its largest draw left.

    Args:
        advance: called with the number of fits done.
    """
    trials = []
    for number in shots:
        for seed in range(seeds):
            trials.append(_trial(known, number, seed, max(shots)))
            advance(1)
    return tuple(trials)


def _trial(known: Known, shots: int, seed: int, most: int) -> Trial:
    examples = known.material.examples
    places = draw(examples, shots, seed)
    drawn = subset(examples, places)
    found = fit_head(known.hidden[places], drawn.gold, known.start, folds(drawn))
    if known.test_hidden is None or known.test_logits is None or known.material.test is None:
        rest = _rest(len(examples.texts), draw(examples, most, seed))
        hidden, logits, gold = known.hidden[rest], known.logits[rest], examples.gold[rest]
    else:
        hidden, logits, gold = known.test_hidden, known.test_logits, known.material.test.gold
    bias = even_out(known.logits[places])
    fitted = logits_of(found.head, hidden)
    return Trial(shots, seed, drawn, found, _compare(gold, logits, bias, fitted, known.labels))


def _rest(count: int, places: Places) -> Places:
    """The places of `count` that are none of `places`."""
    return np.setdiff1d(np.arange(count), places)


def _compare(
    gold: Places, logits: Floats, bias: Floats, fitted: Floats, labels: Sequence[str]
) -> Compared:
    before, calibrated, after = (
        score(gold, softmax(it), labels) for it in (logits, logits + bias, fitted)
    )
    return Compared(before, calibrated, after)


@dataclass(frozen=True)
class Point:
    """The trials with a number of shots: mean, standard deviation (None of a single one) and range
    of the accuracy, the mean macro F1, and the mean accuracies without fitting on the same texts.
    """

    shots: int
    seeds: int
    accuracy: float
    deviation: float | None
    least: float
    most: float
    macro_f1: float
    zero_shot: float
    calibrated: float


def curve(trials: Sequence[Trial]) -> tuple[Point, ...]:
    """The data-efficiency curve, the fewest shots first."""
    return tuple(
        _point([it for it in trials if it.shots == shots])
        for shots in sorted({it.shots for it in trials})
    )


def _point(trials: Sequence[Trial]) -> Point:
    found = [it.compared for it in trials]
    accuracies = np.array([it.fitted.accuracy for it in found])
    return Point(
        shots=trials[0].shots,
        seeds=len(trials),
        accuracy=float(accuracies.mean()),
        deviation=float(accuracies.std(ddof=1)) if len(trials) > 1 else None,
        least=float(accuracies.min()),
        most=float(accuracies.max()),
        macro_f1=float(np.mean([it.fitted.macro_f1 for it in found])),
        zero_shot=float(np.mean([it.zero_shot.accuracy for it in found])),
        calibrated=float(np.mean([it.calibrated.accuracy for it in found])),
    )
