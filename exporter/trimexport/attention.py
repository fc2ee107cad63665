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

from .layerwise import PrefixCache

NAME = "trimexport"


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention with grouped heads, over prefix and text together.

    Args:
        module: the attention layer, holding the prefix where there is one.
        query: [batch, heads, T, head], after the rotary embedding; T counts text and suffix.
        key, value: [batch, kv_heads, T, head].
        attention_mask: bool, broadcasts to [T, T], True where a query may look at a text key.
            The prefix is visible to every query.

    Returns:
        [batch, T, heads, head], and no weights.
    """
    heads, groups = query.shape[1], key.shape[1]
    query = (query * scaling).unflatten(1, (groups, heads // groups))
    own = torch.matmul(query, key.unsqueeze(2).transpose(3, 4))
    scores = torch.where(attention_mask, own, torch.finfo(own.dtype).min)
    prefix_key: torch.Tensor | None = getattr(module, "prefix_key", None)
    if prefix_key is None:
        mixed = torch.matmul(torch.softmax(scores, -1), value.unsqueeze(2))
    else:
        length = prefix_key.shape[1]
        before = torch.matmul(query, prefix_key.unsqueeze(1).transpose(2, 3))
        weights = torch.softmax(torch.cat([before, scores], -1), -1)
        prefix_value: torch.Tensor = module.prefix_value  # type: ignore[assignment]
        mixed = torch.matmul(weights[..., :length], prefix_value.unsqueeze(1))
        mixed = mixed + torch.matmul(weights[..., length:], value.unsqueeze(2))
    return mixed.flatten(1, 2).transpose(1, 2), None


def compile_prefix(body: Any, prefix: PrefixCache) -> None:
    """Give each attention layer of `body` its share of the prefix, as buffers."""
    for layer, key, value in zip(body.layers, prefix.keys, prefix.values, strict=False):
        layer.self_attn.register_buffer("prefix_key", key)
        layer.self_attn.register_buffer("prefix_value", value)


AttentionInterface.register(NAME, attend)
