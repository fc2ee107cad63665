"""Attention over the compiled prompt, as it is traced into the graph.

transformers lets a model's attention be replaced by name. Ours differs from theirs in one thing:
besides the text's own keys and values every query sees the prefix's, which are constants of the
module (`prefix_key`, `prefix_value`, [kv_heads, P, head]) and are never copied per row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

from .families import attention_scale
from .layerwise import PrefixCache
from .skeleton import attention_of, layers_of

NAME = "trimexport"


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention with grouped heads, over prefix and text together.

    Args:
        module: the attention layer, holding the prefix where there is one.
        query: [batch, heads, T, head], after the rotary embedding; T counts text and suffix.
        key, value: [batch, kv_heads, T, head].
        attention_mask: bool, broadcasts to [T, T], True where a query may look at a text key.
            The prefix stands before every query.
        scaling: of the scores; None where a family leaves it to the attention.
        sliding_window: a query sees this many positions, its own included; None is all. All keys
            are kept and masked by position: a cache cut to the window is wrong for later texts.
        softcap: c of Gemma 2's c * tanh(scores / c).

    Returns:
        [batch, T, heads, head], and no weights.
    """
    heads, groups = query.shape[1], key.shape[1]
    scaling = attention_scale(module, query.shape[3]) if scaling is None else scaling
    query = (query * scaling).unflatten(1, (groups, heads // groups))
    position = torch.arange(key.shape[2])
    if sliding_window is not None:
        attention_mask = attention_mask & _near(position, position, sliding_window)
    own = _capped(torch.matmul(query, key.unsqueeze(2).transpose(3, 4)), softcap)
    own = _masked(own, attention_mask)
    prefix_key: torch.Tensor | None = getattr(module, "prefix_key", None)
    if prefix_key is None:
        mixed = torch.matmul(torch.softmax(own, -1), value.unsqueeze(2))
    else:
        length = prefix_key.shape[1]
        before = _capped(torch.matmul(query, prefix_key.unsqueeze(1).transpose(2, 3)), softcap)
        if sliding_window is not None:
            visible = _near(position + length, torch.arange(length), sliding_window)
            before = _masked(before, visible)
        weights = torch.softmax(torch.cat([before, own], -1), -1)
        prefix_value: torch.Tensor = module.prefix_value  # type: ignore[assignment]
        mixed = torch.matmul(weights[..., :length], prefix_value.unsqueeze(1))
        mixed = mixed + torch.matmul(weights[..., length:], value.unsqueeze(2))
    return mixed.flatten(1, 2).transpose(1, 2), None


def _near(queries: torch.Tensor, keys: torch.Tensor, window: int) -> torch.Tensor:
    """Whether a key's position lies inside a query's window, bool [queries, keys]."""
    return queries.unsqueeze(1) - keys.unsqueeze(0) < window


def _masked(scores: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    return torch.where(visible, scores, torch.finfo(scores.dtype).min)


def _capped(scores: torch.Tensor, softcap: float | None) -> torch.Tensor:
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def compile_prefix(body: nn.Module, prefix: PrefixCache) -> None:
    """Give each attention layer of `body` its share of the prefix, as buffers."""
    for layer, key, value in zip(layers_of(body), prefix.keys, prefix.values, strict=False):
        attention = attention_of(layer)
        attention.register_buffer("prefix_key", key)
        attention.register_buffer("prefix_value", value)


AttentionInterface.register(NAME, attend)
