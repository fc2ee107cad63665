"""Which matrices take eight bits instead of four.

Those do whose product misses most in four, as far as the budget goes: the matrices of a graph may
take BITS bits a weight on average, scales counted. With the embedding in four bits that makes 0.65
of int8's bytes on Gemma-2B's shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .blocks import Blocks, compensated, nearest
from .matrices import Product, sample_rows
from .second_moments import SecondMoments

FOUR, EIGHT = 4, 8
# What a weight takes with its share of the block's float32 scale.
SIZES = {FOUR: 4 + 1, EIGHT: 8 + 1}
BITS = 5.25
SAMPLE = 64  # rows of a matrix that are rounded to see what it misses
_LEAST = 1e-30


def rounded(product: Product, part: torch.Tensor, bits: int, moments: SecondMoments) -> Blocks:
    """Rows float32 [n, inputs] of a product's weight in blocks. In four bits later inputs make up
    for the errors of earlier ones."""
    if bits == EIGHT:
        return nearest(part, bits)
    return compensated(part, moments.factors(product.parameter), bits)


def widths(found: Sequence[Product], moments: SecondMoments) -> list[int]:
    """Four or eight bits for the matrix of each product."""
    sizes = [product.weight.size for product in found]
    return spread(sizes, [missed(product, moments) for product in found])


def missed(product: Product, moments: SecondMoments) -> float:
    """The square of what a product misses in four bits by that of what it makes, on calibration
    texts; measured on some of its output channels."""
    part = sample_rows(product.weight, SAMPLE)
    wrong = part - rounded(product, part, FOUR, moments).numbers(part.shape[1])
    whole = moments.missed(product.parameter, part)
    return moments.missed(product.parameter, wrong) / max(whole, _LEAST)


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
