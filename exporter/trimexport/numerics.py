"""The types of arrays of float64 and of places, the softmax over labels, and when the label mass is
low."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

LOW_MASS = 0.5
"""Where the labels hold less of the vocabulary's probability, the model would rather say something
else."""


def softmax(logits: Floats) -> Floats:
    """The probabilities of logits: both float64 [n, labels], each row of the result sums to 1."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def margins(reference: Floats, other: Floats) -> tuple[Floats, Floats]:
    """By how many logits the one of two labels is ahead of the other on each text, in `reference`
    and in `other`, both float64 [n, labels], so that each result is [n].

    The two labels are those that `reference` finds most probable on that text. The sign goes by
    their order and not by which is ahead, so that of two labels all texts have one axis.
    """
    pair = np.sort(np.argsort(reference, axis=1)[:, -2:], axis=1)
    first, second = (np.take_along_axis(it, pair, axis=1).T for it in (reference, other))
    return first[0] - first[1], second[0] - second[1]


def deviation(values: Floats, kinds: int = 1) -> float:
    """The standard deviation of values [n * kinds], each kind's about its own mean: of so many
    questions, whose answers stand one behind the other for each text, what lies between them is
    left out."""
    return float(np.sqrt(values.reshape(-1, kinds).var(axis=0).mean()))


def margin_error(reference: Floats, other: Floats, kinds: int = 1) -> float | None:
    """The standard deviation over texts of the error of `margins`, by that of the margin itself.
    Both arguments are logits, float64 [n, labels]. None where the margin hardly varies, as on one
    text: by less than 0.001 logits, of which float32 arithmetic alone may be the cause.

    Args:
        kinds: as in `deviation`.
    """
    expected, found = margins(reference, other)
    spread = deviation(expected, kinds)
    return None if spread < 1e-3 else deviation(found - expected, kinds) / spread
