"""What the answers are worth, in numbers. Probabilities and right answers in, values out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimexport.numerics import Floats, Places

from .intervals import Z, wilson

BINS = 15


@dataclass(frozen=True)
class LabelScores:
    """One label: of the answers that name it the right ones (precision), of the texts that have it
    those found (recall), their harmonic mean, and how many texts have it."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Bin:
    """Answers of similar probability: their mean probability, the share that is right, how many."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class Point:
    """Answers below a probability left out: the share that is left, and how much of it is right."""

    threshold: float
    coverage: float
    accuracy: float | None


@dataclass(frozen=True)
class Scores:
    """All of them. `interval` holds the true accuracy with 95 %; `macro_f1` is the mean over the
    labels that any text has or was given; rows of `confusion` are the right answers, columns those
    given."""

    texts: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    labels: tuple[LabelScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration_error: float
    bins: tuple[Bin, ...]
    coverage: tuple[Point, ...]


@dataclass(frozen=True)
class Comparison:
    """Two classifiers on the same texts: texts that only one answers rightly, the difference of
    their accuracies (the second's less the first's) with its 95 % interval, and the probability of
    such a difference between classifiers that are equally good."""

    only_first: int
    only_second: int
    difference: float
    interval: tuple[float, float]
    p_value: float


def score(gold: Places, probabilities: Floats, labels: Sequence[str]) -> Scores:
    """Judge probabilities `[texts, labels]` by the places of the right answers, int64 `[texts]`."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support  # extra `eval`

    places = range(len(labels))
    answers, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = answers == gold
    each = precision_recall_fscore_support(gold, answers, labels=places, zero_division=0.0)
    bins = _bins(confidence, right)
    gaps = [abs(item.confidence - item.accuracy) * item.count for item in bins]
    return Scores(
        texts=len(gold),
        accuracy=float(right.mean()),
        interval=wilson(int(right.sum()), len(gold)),
        macro_f1=float(each[2][_seen(gold, answers, len(labels))].mean()),
        labels=tuple(
            LabelScores(label, float(precision), float(recall), float(f1), int(support))
            for label, precision, recall, f1, support in zip(labels, *each, strict=True)
        ),
        confusion=tuple(
            tuple(map(int, row)) for row in confusion_matrix(gold, answers, labels=places)
        ),
        calibration_error=sum(gaps) / len(gold),
        bins=bins,
        coverage=tuple(abstention(confidence, right, at / 100) for at in range(0, 100, 2)),
    )


def abstention(confidence: Floats, right: npt.NDArray[np.bool_], threshold: float) -> Point:
    """What is left where answers below a probability are not given."""
    kept = confidence >= threshold
    accuracy = float(right[kept].mean()) if kept.any() else None
    return Point(threshold, float(kept.mean()), accuracy)


def compare(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Comparison:
    """Whether two classifiers differ, from which of the same texts each answers rightly: McNemar's
    test with exact probabilities (McNemar 1947, Psychometrika 12)."""
    from scipy.stats import binomtest  # extra `eval`

    count = len(first)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differ, difference = only_first + only_second, (only_second - only_first) / count
    half = Z * math.sqrt(max(0.0, differ - (only_first - only_second) ** 2 / count)) / count
    p_value = float(binomtest(only_second, differ, 0.5).pvalue) if differ else 1.0
    return Comparison(
        only_first, only_second, difference, (difference - half, difference + half), p_value
    )


def _seen(gold: Places, answers: Places, labels: int) -> npt.NDArray[np.bool_]:
    return np.isin(np.arange(labels), np.concatenate([gold, answers]))


def _bins(confidence: Floats, right: npt.NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Bins of equal width, the empty ones left out (Guo et al. 2017, arXiv:1706.04599)."""
    places = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return tuple(
        Bin(float(confidence[at].mean()), float(right[at].mean()), int(at.sum()))
        for at in (places == place for place in range(BINS))
        if at.any()
    )
