"""Hadamard matrices, and rows turned by them (see `rotation`)."""

from __future__ import annotations

import math

import torch

WIDTH = 64


def width_of(inputs: int) -> int:
    """How many of so many channels are turned together: the largest power of two up to WIDTH that
    divides them. One leaves them as they are."""
    return math.gcd(inputs, WIDTH)


def hadamard(width: int) -> torch.Tensor:
    """The orthogonal Hadamard matrix float32 [width, width] (Sylvester's), its own inverse; `width`
    is a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < width:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix / math.sqrt(width)


def rotated_rows(part: torch.Tensor) -> torch.Tensor:
    """Rows float32 [..., inputs], each turned block by block."""
    width = width_of(part.shape[-1])
    blocks: torch.Tensor = part.unflatten(-1, (-1, width))
    return (blocks @ hadamard(width)).flatten(-2)
