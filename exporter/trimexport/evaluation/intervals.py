"""The interval in which the true value of a counted share lies."""

from __future__ import annotations

import math

Z = 1.959964  # 95 % of a normal distribution lie within so many standard deviations


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of the share `right` of `count` (Wilson 1927, Journal of the American
    Statistical Association 22)."""
    share, extra = right / count, Z * Z / count
    middle = (share + extra / 2) / (1 + extra)
    half = Z / (1 + extra) * math.sqrt(share * (1 - share) / count + extra / (4 * count))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
