"""What the matrices of a model's layers read while it runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


@contextmanager
def watched(
    body: nn.Module,
    see: Callable[[str, torch.Tensor], None],
    places: Callable[[torch.Tensor], torch.Tensor],
) -> Iterator[None]:
    """Show what every matrix of a body reads meanwhile.

    Args:
        see: called with the name of a parameter within the body, with `body.` before it, and with
            some positions of its inputs, float32 [positions, inputs], where there are any.
        places: which positions of inputs [rows, T, inputs] those are, bool [rows, T].
    """

    def look(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        (read,) = inputs
        shown = read[places(read)]
        if len(shown):
            see(name, shown)

    hooks = [
        module.register_forward_pre_hook(functools.partial(look, f"body.{name}.weight"))
        for name, module in body.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def last_places(read: torch.Tensor, count: int) -> torch.Tensor:
    """The last `count` positions of each row of inputs [rows, T, ...]: bool [rows, T]."""
    rows, length = read.shape[:2]
    return (torch.arange(length) >= length - count).expand(rows, -1)
