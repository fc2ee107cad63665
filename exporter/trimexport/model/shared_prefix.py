"""What several sequences begin with, read once: transformers' own cache, shared by all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache


class SharedPrefix(DynamicCache):
    """Keys and values of one sequence that any number of rows go on from.

    The first pass, of one row, fills it. From then on each layer gets them with the row's own
    behind them, and nothing more is kept.
    """

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *more: Any,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [rows, kv_heads, T, head] with the shared ones before them."""
        layer: Any = self.layers[layer_idx] if layer_idx < len(self.layers) else None
        if layer is None:
            return super().update(key_states, value_states, layer_idx, *more, **options)
        rows = len(key_states)
        keys, values = (kept.expand(rows, -1, -1, -1) for kept in (layer.keys, layer.values))
        return torch.cat([keys, key_states], 2), torch.cat([values, value_states], 2)


def share(cache: DynamicCache) -> SharedPrefix:
    """What one row left in a cache, for others to go on from."""
    shared = SharedPrefix()
    layers: list[Any] = list(cache.layers)
    for place, layer in enumerate(layers):
        shared.update(layer.keys, layer.values, place)
    return shared


def common_prefix(sequences: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The ids that all of several sequences begin with, at least one of each being left; none of a
    single sequence."""
    if len(sequences) < 2:
        return ()
    most = min(map(len, sequences)) - 1
    columns = zip(*(sequence[:most] for sequence in sequences), strict=True)
    shared = []
    for column in columns:
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return tuple(shared)
