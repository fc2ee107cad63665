"""Rows of int8 weights of which no two that are added in 16 bits overflow.

x64 processors without VNNI multiply unsigned codes with signed weights, add the products of two
inputs, 2i and 2i + 1, in 16 bits and cut off what does not fit (`vpmaddubsw`). A code is 255 at
most, so two such weights w and v are safe where

    |w + v| <= 128,    for 255 * 128 = 32,640 < 2 ** 15

and each alone is within 127: of weights with different signs one is the bound of both. Products are
then exact on every processor, by any program, with no conversion of weights when they are loaded.

Few weights are so large that their pair has to be cut. A row's scale is as large as is worth it:
a larger one makes all rounding coarser, a smaller one cuts more. What is cut counts as an error of
rounding, and where later inputs make up for those of earlier ones (see `compensation`) they make up
for it too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from .compensation import compensate, in_turn

LEVELS = 127
PAIR = 128
LEAST = 1e-30
"""The least scale: a row of zeros has none, and is quantised with this one."""

# What the scale that cuts no single weight is multiplied with, to try.
FACTORS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5, 1.7, 2.0)
# So many pairs of a row are looked at, the largest: smaller ones are not cut by any scale.
LARGEST = 32

Rows = tuple[torch.Tensor, torch.Tensor]
"""Codes int8 [n, inputs] and scales float32 [n]."""


def nearest_rows(part: torch.Tensor) -> Rows:
    """Rows float32 [n, inputs], each weight rounded by itself."""
    scales = row_scales(part)
    codes = _halves(torch.round(part / scales[:, None]).clamp_(-LEVELS, LEVELS))
    total = codes.sum(-1)
    cut = (total.abs() - PAIR).clamp_(min=0)
    first = (cut / 2).floor_()
    codes -= codes.sign() * torch.stack((first, cut - first), -1)
    return codes.flatten(1)[:, : part.shape[1]].to(torch.int8), scales


def compensated_rows(part: torch.Tensor, factors: Sequence[torch.Tensor]) -> Rows:
    """The same with errors made up for; `factors` are U [width, width] of each group of inputs (see
    `compensation`), of an even number each but for the last."""
    scales = row_scales(part)
    steps = scales.reciprocal()
    made: list[torch.Tensor] = []

    def round_block(block: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        codes = torch.empty_like(block)
        most = _most_of_first(block * steps)

        def rounded(place: int, weights: torch.Tensor) -> torch.Tensor:
            found = torch.mul(weights, steps, out=codes[place]).round_()
            if place % 2 == 0:
                limit = most[place // 2]
                return found.clamp_(-limit, limit)
            before = codes[place - 1]
            lowest, highest = -PAIR - before, PAIR - before
            return found.clamp_(lowest.clamp_(min=-LEVELS), highest.clamp_(max=LEVELS))

        errors = in_turn(block, scales, shares, rounded)
        made.append(codes)
        return errors

    compensate(part, factors, round_block)
    return torch.cat(made).T.to(torch.int8), scales


def row_scales(part: torch.Tensor) -> torch.Tensor:
    """The scale that suits each row float32 [n, inputs]: float32 [n]. Expected are a twelfth of its
    square for each weight that is rounded, and half of the square of what a pair is cut by."""
    scale = (part.abs().amax(1) / LEVELS).clamp_(min=LEAST)
    sums = _halves(part).sum(-1).abs()
    large = sums.topk(min(LARGEST, sums.shape[1]), 1).values
    best, least = scale, torch.full_like(scale, torch.inf)
    for factor in FACTORS:
        tried = scale * factor
        cut = (large - PAIR * tried[:, None]).clamp_(min=0)
        wrong = tried.square() * (part.shape[1] / 12) + cut.square().sum(1) / 2
        best = torch.where(wrong < least, tried, best)
        least = torch.minimum(wrong, least)
    return best


def _halves(part: torch.Tensor) -> torch.Tensor:
    """Rows [n, inputs] in pairs [n, pairs, 2]; a last one without another has a zero."""
    pairs: torch.Tensor = pad(part, (0, part.shape[1] % 2)).unflatten(1, (-1, 2))
    return pairs


def _most_of_first(block: torch.Tensor) -> torch.Tensor:
    """How large the code of the first of each pair may be, so that a pair that is too large is cut
    on both sides: whole numbers float32 [pairs, n] for weights [inputs, n] in scales."""
    first, second = block[::2], block[1::2]
    second = pad(second, (0, 0, 0, len(first) - len(second)))
    cut = ((first + second).abs() - PAIR).clamp_(min=0) / 2
    room = (first.abs() - cut).floor_()
    return torch.where(cut > 0, room, LEVELS).clamp_(0, LEVELS)
