"""Hadamard matrices, and rows turned by them (see `rotation`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

WIDTH = 64


@dataclass(frozen=True)
class Turn:
    """Which channels are turned together: `width` of them side by side, a block; and then, where
    `blocks` is not 1, each with those at its place in as many blocks. Both are powers of two."""

    width: int
    blocks: int = 1


def turn_of(inputs: int, across: bool = False) -> Turn:
    """How so many channels are turned: in blocks of the largest power of two up to WIDTH that
    divides them, which is one where they are odd. With `across` blocks are turned with each other
    too, as many as the largest power of two up to WIDTH that divides their number."""
    width = math.gcd(inputs, WIDTH)
    return Turn(width, math.gcd(inputs // width, WIDTH) if across else 1)


def hadamard(width: int) -> torch.Tensor:
    """The orthogonal Hadamard matrix float32 [width, width] (Sylvester's), its own inverse; `width`
    is a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < width:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix / math.sqrt(width)


def turned_rows(part: torch.Tensor, turn: Turn) -> torch.Tensor:
    """Rows float32 [..., inputs], each turned."""
    blocks: torch.Tensor = part.unflatten(-1, (-1, turn.blocks, turn.width)) @ hadamard(turn.width)
    if turn.blocks > 1:
        blocks = hadamard(turn.blocks) @ blocks
    return blocks.flatten(-3)
