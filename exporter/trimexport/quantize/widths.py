"""Which matrices take eight bits instead of four.

Those do whose product misses most in four, as far as the budget goes: the matrices of a graph may
take BITS bits a weight on average, scales counted. On Gemma-2B's shape, whose embedding is a fifth
of it and stays in int8, that makes 0.73 of int8's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .blocks import Blocks, compensated, nearest
from .hadamard import Turn, turned_rows
from .matrices import Product, sample_rows
from .second_moments import SecondMoments

FOUR, EIGHT = 4, 8
# What a weight takes with its share of the block's float32 scale.
SIZES = {FOUR: 4 + 1, EIGHT: 8 + 1}
BITS = 5.25
SAMPLE = 64  # rows of a matrix that are rounded to see what it misses
_LEAST = 1e-30


@dataclass(frozen=True)
class Rounding:
    """What the rows of a product's weight are rounded by: how they are turned before, if they are
    (see `rotation`), and the second moments of what they are multiplied with then."""

    product: Product
    turn: Turn | None
    moments: SecondMoments

    def weights(self, part: torch.Tensor) -> torch.Tensor:
        """Rows float32 [n, inputs] of the weight as they are rounded."""
        return part if self.turn is None else turned_rows(part, self.turn)

    def blocks(self, weights: torch.Tensor, bits: int) -> Blocks:
        """Such rows in blocks. In four bits later inputs make up for the errors of earlier ones."""
        if bits == EIGHT:
            return nearest(weights, bits)
        return compensated(weights, self.moments.factors(self.product.parameter), bits)

    def missed(self) -> float:
        """The square of what the product misses in four bits by that of what it makes, on
        calibration texts; measured on some of its output channels."""
        weights = self.weights(sample_rows(self.product.weight, SAMPLE))
        wrong = weights - self.blocks(weights, FOUR).numbers(weights.shape[1])
        whole = self.moments.missed(self.product.parameter, weights)
        return self.moments.missed(self.product.parameter, wrong) / max(whole, _LEAST)


def widths(roundings: Sequence[Rounding]) -> list[int]:
    """Four or eight bits for each matrix."""
    sizes = [rounding.product.weight.size for rounding in roundings]
    return spread(sizes, [rounding.missed() for rounding in roundings])


def spread(sizes: Sequence[int], errors: Sequence[float]) -> list[int]:
    """Four or eight bits for matrices of so many weights with such errors in four: eight for the
    worst, each if it still fits."""
    left = (BITS - SIZES[FOUR]) / (SIZES[EIGHT] - SIZES[FOUR]) * sum(sizes)
    found = [FOUR] * len(sizes)
    for place in sorted(range(len(sizes)), key=lambda place: -errors[place]):
        if sizes[place] <= left:
            found[place] = EIGHT
            left -= sizes[place]
    return found
