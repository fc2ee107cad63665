"""Weights in blocks along the inputs, each with a scale.

    weight[n, k] ~ scale[n, k // BLOCK] * (codes[n, k] - 2 ** (bits - 1))

A scale may be negative: of four bits' codes the lowest stands further from zero than the highest,
and it is for the larger side.

A block is rounded to the nearest codes, or so that later inputs make up for the errors of earlier
ones (see `compensation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from .compensation import BLOCK, compensate, in_turn

# What the largest weight of a block of four bits is divided by for a scale to try. At 7 nothing is
# clipped on either side, from 8 on what is larger than the scale allows.
DIVISORS = (7.0, 8.0, 8.4, 8.9, 9.5, 10.2)
# The least scale: a block of zeros has none, and is quantised with this one.
LEAST = 1e-30


@dataclass(frozen=True)
class Form:
    """Codes of so many `bits`, and a scale for each `block` of them; and whether there is an offset
    besides."""

    bits: int
    block: int = BLOCK
    offset: bool = False


@dataclass(frozen=True)
class Blocks:
    """Rows in blocks: codes uint8 [n, blocks, block] of so many bits, and scales float32 [n,
    blocks]. `offsets`, of blocks that were taken over, are float32 [n, blocks] too, and added to
    each number of a block."""

    codes: torch.Tensor
    scales: torch.Tensor
    bits: int
    offsets: torch.Tensor | None = None

    def numbers(self, inputs: int) -> torch.Tensor:
        """What the codes stand for, float32 [n, inputs]."""
        values = self.codes.float().sub_(_zero(self.bits)).mul_(self.scales[..., None])
        if self.offsets is not None:
            values.add_(self.offsets[..., None])
        return values.flatten(1)[:, :inputs]


def nearest(part: torch.Tensor, bits: int) -> Blocks:
    """Rows float32 [n, inputs], each number rounded by itself; they are filled up with zeros to
    whole blocks."""
    values = pad(part, (0, -part.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    scale = _scale(values, bits, -1)
    codes = _rounded(values, scale.reciprocal(), bits).add_(_zero(bits))
    return Blocks(codes.to(torch.uint8), scale[..., 0], bits)


def compensated(part: torch.Tensor, factors: Sequence[torch.Tensor], bits: int) -> Blocks:
    """The same with errors made up for; `factors` are U [width, width] of each group of inputs (see
    `compensation`). A block gets its scale when its turn comes."""
    codes: list[torch.Tensor] = []
    scales: list[torch.Tensor] = []

    def round_block(block: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        scale = _scale(block, bits, 0)[0]
        steps = scale.reciprocal()
        found = torch.zeros(BLOCK, len(scale))

        def rounded(place: int, weights: torch.Tensor) -> torch.Tensor:
            found[place] = _rounded(weights, steps, bits)
            return found[place]

        errors = in_turn(block, scale, shares, rounded)
        codes.append(found.add_(_zero(bits)).to(torch.uint8).T)
        scales.append(scale)
        return errors

    compensate(part, factors, round_block)
    return Blocks(torch.stack(codes, 1), torch.stack(scales, 1), bits)


def _zero(bits: int) -> int:
    """The code of zero."""
    return int(2 ** (bits - 1))


def _scale(values: torch.Tensor, bits: int, dim: int) -> torch.Tensor:
    """The scale that suits each block, which lies along `dim`: float32, of one number there."""
    size = values.abs().amax(dim, keepdim=True).clamp_(min=LEAST)
    if bits == 8:
        return size / (_zero(bits) - 1)
    signed = torch.where(values.amax(dim, keepdim=True) < size, size, -size)
    best, least = signed / DIVISORS[0], torch.full_like(size, torch.inf)
    for divisor in DIVISORS:
        scale = signed / divisor
        missed = _rounded(values, scale.reciprocal(), bits).mul_(scale).sub_(values)
        wrong = missed.square_().sum(dim, keepdim=True)
        best = torch.where(wrong < least, scale, best)
        least = torch.minimum(wrong, least)
    return best


def _rounded(values: torch.Tensor, steps: torch.Tensor, bits: int) -> torch.Tensor:
    """The codes of weights less that of zero, as whole float32 numbers; `steps` are the reciprocals
    of the scales."""
    zero = _zero(bits)
    return torch.mul(values, steps).round_().clamp_(-zero, zero - 1)


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes uint8 [..., n] of eight bits as they are; of four, two in a byte [..., n / 2], the
    first in the lower half."""
    return codes if bits == 8 else codes[..., ::2] | (codes[..., 1::2] << 4)
