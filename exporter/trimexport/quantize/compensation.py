"""Rounding that makes up for its errors, some inputs after the others.

What a product misses when the weights of one input are rounded can partly be had back from inputs
that go along with it on real texts. GPTQ (Frantar et al. 2022, arXiv 2210.17323) goes through the
inputs in order. With their second moments H, damped, and the upper Cholesky factor U of the inverse
of H, the error e of input k changes the weights of each input j behind it by

    -e / U[k, k] * U[k, j]

Here it does so within groups of neighbours (see `second_moments`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

BLOCK = 32
"""So many inputs are rounded before what they ask of the inputs behind them is worked in."""

RoundBlock = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Rounds the weights [inputs, n] of up to BLOCK inputs, which it may change, given what of an
input's error each other one takes [inputs, inputs]; returns their errors float32 [inputs, n]."""


def compensate(
    part: torch.Tensor, factors: Sequence[torch.Tensor], round_block: RoundBlock
) -> None:
    """Round rows float32 [n, inputs], a block of inputs after the other; `factors` are U [width,
    width] of each group of inputs."""
    with _one_thread():
        for group, upper in zip(part.split([len(it) for it in factors], 1), factors, strict=True):
            _one_group(group, upper, round_block)


def _one_group(weights: torch.Tensor, upper: torch.Tensor, round_block: RoundBlock) -> None:
    # [width, n], so that an input's weights lie together; in two steps, which are faster
    rest = weights.contiguous().T.contiguous()
    shares = upper / upper.diagonal()[:, None]
    for first in range(0, len(upper), BLOCK):
        last = min(first + BLOCK, len(upper))
        errors = round_block(rest[first:last], shares[first:last, first:last])
        rest[last:].addmm_(shares[first:last, last:].T, errors, alpha=-1)


def in_turn(
    block: torch.Tensor,
    scale: torch.Tensor,
    shares: torch.Tensor,
    rounded: Callable[[int, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Round a block's inputs one after the other.

    Args:
        block: weights float32 [inputs, n], which are changed on the way.
        scale: what a code stands for, float32 [n].
        shares: see `RoundBlock`.
        rounded: the codes of an input, as whole float32 numbers, given its place and its weights.

    Returns:
        their errors, float32 [inputs, n].
    """
    errors = torch.empty_like(block)
    for place, weights in enumerate(block):
        found = rounded(place, weights)
        torch.addcmul(weights, found, scale, value=-1, out=errors[place])
        block[place + 1 :].addr_(shares[place, place + 1 :], errors[place], alpha=-1)
    return errors


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread meanwhile. Between so many short operations, threads
    wait for each other: with two, rounding takes twice as long, and on cores that others use five
    times."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
