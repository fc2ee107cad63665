"""The answers that logits give to texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .bundle import Variant
from .errors import InputError, NoNumberError
from .tokenize import Encoded

HALF = frozenset(("fp16", "tensorrt-fp16", "tensorrt-int8"))
"""The precisions that compute in float16, whose numbers end early."""


@dataclass(frozen=True)
class Prediction:
    """The answer to one text.

    `probabilities` are in the order of `Classifier.labels` and `probability` is that of `label`,
    the most probable. `tokens` counts the text's own tokens that were read; `truncated` says that
    the text had more than the bundle's limit and was cut.
    """

    label: str
    probability: float
    probabilities: tuple[float, ...]
    truncated: bool
    tokens: int


def predictions(
    labels: Sequence[str],
    variant: Variant,
    rows: Sequence[Encoded],
    logits: npt.NDArray[np.float32],
) -> list[Prediction | InputError]:
    """The answers that a variant's logits `[rows, labels]` give to texts, or a NoNumberError for a
    text some of whose logits are no finite numbers."""
    finite = finite_rows(logits)
    real = np.where(finite[:, None], logits, 0).astype(np.float64)
    weights = np.exp(real - real.max(axis=1, keepdims=True))
    shares = (weights / weights.sum(axis=1, keepdims=True)).tolist()
    best = real.argmax(axis=1).tolist()
    return [
        Prediction(
            label=labels[place],
            probability=probabilities[place],
            probabilities=tuple(probabilities),
            truncated=row.truncated,
            tokens=len(row.ids),
        )
        if answered
        else no_number(variant)
        for row, place, probabilities, answered in zip(
            rows, best, shares, finite.tolist(), strict=True
        )
    ]


def no_number(variant: Variant) -> NoNumberError:
    """What is to be said of a text to which a variant gives logits that are no finite numbers."""
    what = f"the variant {variant.name} gives it a logit that is no finite number"
    if variant.precision in HALF:
        return NoNumberError(
            f"{what}: float16 ends at 65504; use a variant in another precision, and `trimexport "
            "verify` to see which texts this one fails on"
        )
    return NoNumberError(
        f"{what}; see with `trimexport-run info --check` whether its files are whole, and if they "
        "are build the bundle again"
    )


def finite_rows(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Whether each row's logits are finite numbers, bool `[rows]`."""
    return np.asarray(np.isfinite(logits).all(axis=1))
