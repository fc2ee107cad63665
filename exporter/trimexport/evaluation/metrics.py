"""Metrics of answers: probabilities and right answers in, values out.

scikit-learn and SciPy belong to the extra `eval`, so they are imported where they are used.
"""

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
    """The scores of one label: the share of right ones among the answers that name it (precision),
    the share of its texts that were given it (recall), their harmonic mean, and the number of its
    texts."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Bin:
    """Answers of similar probability: their mean probability, the share of right ones, and how many
    they are."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class Point:
    """The answers whose probability is at least `threshold`: their share of all answers, and the
    share of right ones among them, None if there are none."""

    threshold: float
    coverage: float
    accuracy: float | None


@dataclass(frozen=True)
class Scores:
    """All metrics of one set of answers.

    `interval` is the 95 % interval of the accuracy. `macro_f1` is the mean over the labels that any
    text has or was given. The rows of `confusion` are the right answers, its columns the given
    ones. `coverage` has a point for each threshold from 0 to 0.98.
    """

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
    """Two classifiers on the same texts: how many texts only the first and only the second answers
    rightly, the second's accuracy less the first's with its 95 % interval, and the probability of
    so large a difference between equally good classifiers."""

    only_first: int
    only_second: int
    difference: float
    interval: tuple[float, float]
    p_value: float


def score(gold: Places, probabilities: Floats, labels: Sequence[str]) -> Scores:
    """Score probabilities, float64 [texts, labels].

    Args:
        gold: the right answers' places among the labels, int64 [texts].
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    places = range(len(labels))
    answers, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = answers == gold
    each = precision_recall_fscore_support(gold, answers, labels=places, zero_division=0.0)
    bins = _bins(confidence, right)
    gaps = [abs(own.confidence - own.accuracy) * own.count for own in bins]
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
    """The point of a threshold.

    Args:
        confidence: each answer's probability, float64 [texts].
        right: whether each answer is right.
    """
    kept = confidence >= threshold
    accuracy = float(right[kept].mean()) if kept.any() else None
    return Point(threshold, float(kept.mean()), accuracy)


def compare(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Comparison:
    """Compare two classifiers by McNemar's test with exact probabilities (McNemar 1947,
    Psychometrika 12).

    Args:
        first, second: whether each classifier answers each text rightly, bool [texts].
    """
    from scipy.stats import binomtest

    count = len(first)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differ, difference = only_first + only_second, (only_second - only_first) / count
    half = Z * math.sqrt(max(0.0, differ - (only_first - only_second) ** 2 / count)) / count
    p_value = float(binomtest(only_second, differ, 0.5).pvalue) if differ else 1.0
    return Comparison(
        only_first, only_second, difference, (difference - half, difference + half), p_value
    )


def _seen(gold: Places, answers: Places, labels: int) -> npt.NDArray[np.bool_]:
    """Whether any text has each label or was given it, bool [labels]."""
    return np.isin(np.arange(labels), np.concatenate([gold, answers]))


def _bins(confidence: Floats, right: npt.NDArray[np.bool_]) -> tuple[Bin, ...]:
    """The answers in bins of equal width (Guo et al. 2017, arXiv:1706.04599); empty bins are left
    out."""
    places = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return tuple(
        Bin(float(confidence[at].mean()), float(right[at].mean()), int(at.sum()))
        for at in (places == place for place in range(BINS))
        if at.any()
    )
