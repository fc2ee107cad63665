"""The intervals in which the true values of measured ones lie, by how many texts were measured."""

from __future__ import annotations

import math

import numpy as np

Z = 1.959964  # 95 % of a normal distribution lie within so many standard deviations
_TAIL = 0.025  # of a 95 % interval, on each side


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of the share `right` of `count` (Wilson 1927, Journal of the American
    Statistical Association 22)."""
    share, extra = right / count, Z * Z / count
    middle = (share + extra / 2) / (1 + extra)
    half = Z / (1 + extra) * math.sqrt(share * (1 - share) / count + extra / (4 * count))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def exact(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of the share `right` of `count` that holds near 0 and 1 too, where Wilson's
    is too narrow (Clopper and Pearson 1934, Biometrika 26)."""
    lower = 0.0 if right == 0 else 1 - _upper(count - right, count)
    return lower, 1.0 if right == count else _upper(right, count)


def _upper(right: int, count: int) -> float:
    """The share of which no more than `right` of `count` come in 2.5 % of the cases."""
    some = np.arange(right + 1)
    factorials = np.concatenate(([0.0], np.log(np.arange(1, count + 1)).cumsum()))
    ways = factorials[count] - factorials[some] - factorials[count - some]
    low, high = right / count, 1.0
    for _ in range(50):  # to the last digit
        share = (low + high) / 2
        odds = some * math.log(share) + (count - some) * math.log1p(-share)
        often = np.exp(ways + odds).sum() > _TAIL
        low, high = (share, high) if often else (low, share)
    return high


def of_ratio(ratio: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a ratio of two standard deviations, each found on the same `count`
    texts, 2 at least. As if the two were normal and independent: the logarithm of each deviation
    then has one of about 1 / sqrt(2 (count - 1))."""
    factor = math.exp(Z / math.sqrt(count - 1))
    return ratio / factor, ratio * factor
