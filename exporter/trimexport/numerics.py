"""The types of arrays of float64 and of places, and the softmax over labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


def softmax(logits: Floats) -> Floats:
    """The probabilities of logits: both float64 [n, labels], each row of the result sums to 1."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
