"""Attention over the compiled prompt, as it is traced into the graph.

transformers lets a model's attention be replaced by name. Ours differs from theirs in one thing:
besides the text's own keys and values every query sees the prefix's, which are constants of the
module (`prefix_key`, `prefix_value`) and are never copied per row.

A text's answer must not depend on how far its row is padded, to the last bit: int8 would make
tenths of a logit of it. A softmax over a padded row sums in another order than over the row alone,
and so does a matrix product that is cut into other blocks. Hence the weights' sum is a column of
the same product that mixes the values, where padding adds exact zeros at the end; the values are
mixed a block of columns at a time, which ONNX Runtime cuts at the same keys whatever the shape and
the threads; and the scores are summed over pieces of the head that it does not cut at all.

Graphs for GPUs have plain attention instead, in fewer operators: there no two shapes give the same
bits anyway.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AttentionInterface

from trimexport.errors import UnsupportedError
from trimexport.model.layerwise import PrefixCache
from trimexport.source.empty_model import attention_of, layers_of
from trimexport.source.families import attention_scale

from .nodes import require
from .task_inputs import COLUMNS

STEADY, PLAIN = "trimexport", "trimexport-plain"
PIECE = 128  # ONNX Runtime's matrix products sum so many terms in one go, whatever the shape
PACKED = 256  # the same by a constant matrix, which it packs once


class _Window(NamedTuple):
    """The positions of the text's tokens, int64 [1 or batch, T], and how many a query sees."""

    positions: torch.Tensor
    size: int


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
    position_ids: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention with grouped heads, over prefix and text together.

    Args:
        module: the attention layer, holding the prefix where there is one.
        query: [batch, heads, T, head], after the rotary embedding; T counts text and suffix.
        key, value: [batch, kv_heads, T, head].
        attention_mask: bool [1 or batch, 1, T, T], True where a query may look at a text key. The
            prefix stands before every query.
        scaling: of the scores; None where a family leaves it to the attention.
        sliding_window: a query sees this many positions, its own included; None is all. All keys
            are kept and masked by position: a cache cut to the window is wrong for later texts.
        softcap: c of Gemma 2's c * tanh(scores / c).
        position_ids: int64 [1 or batch, T], which a window is counted in: where the trie of the
            labels stands, a token's place is not its position.

    Returns:
        [batch, T, heads, head], and no weights.
    """
    groups, size = key.shape[1], query.shape[3]
    window = None if sliding_window is None else _window(position_ids, sliding_window)
    own, before = _all_scores(module, query, key, attention_mask, scaling, window, softcap)
    if before is None:
        mixed = _sums(torch.exp(own - own.amax(-1, keepdim=True)), columns(value), groups)
    else:
        largest = torch.maximum(before.amax(-1, keepdim=True), own.amax(-1, keepdim=True))
        mixed = _sums(torch.exp(before - largest), prefix_of(module)["value"], groups)
        mixed = mixed + _sums(torch.exp(own - largest), columns(value), groups)
    mixed = mixed[..., :size] / mixed[..., size : size + 1]
    return _by_token(mixed, query.shape[1]), None


def attend_plainly(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    position_ids: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What `attend` computes, with one softmax and a product each for text and prefix."""
    groups = key.shape[1]
    window = None if sliding_window is None else _window(position_ids, sliding_window)
    own, before = _all_scores(module, query, key, attention_mask, scaling, window, softcap)
    if before is None:
        return _by_token(_grouped(own.softmax(-1), groups) @ value, query.shape[1]), None
    length = before.shape[-1]
    weights = _grouped(torch.cat([before, own], -1).softmax(-1), groups)
    mixed = weights[..., :length] @ prefix_of(module)["value"] + weights[..., length:] @ value
    return _by_token(mixed, query.shape[1]), None


def _all_scores(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None,
    window: _Window | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Masked scores on the text's keys [batch, heads, T, T] and the prefix's [..., P], if any."""
    heads, size = query.shape[1], query.shape[3]
    scaling = attention_scale(module, size) if scaling is None else scaling
    query = (query * scaling).reshape(query.shape[0], key.shape[1], -1, size)
    own = _scores(query, key.transpose(2, 3), heads, softcap)
    if window is not None:
        attention_mask = torch.logical_and(attention_mask, _near(window, window.positions))
    own = _masked(own, attention_mask)
    prefix = prefix_of(module)
    if not prefix:
        return own, None
    length = prefix["key"].shape[-1]
    piece = PACKED if prefix["key"].dim() == 2 else PIECE
    before = _scores(query, prefix["key"], heads, softcap, piece)
    if "bias" in prefix:
        before = before + prefix["bias"]
    if window is not None:
        before = _masked(before, _near(window, torch.arange(length).unsqueeze(0)))
    return own, before


def prefix_of(module: nn.Module) -> Mapping[str, torch.Tensor]:
    """The prefix that an attention layer holds: `key` [..., head, P] and `value`, and where it is
    an input of the graph `bias` [P]; nothing where there is none.
    """
    given: Mapping[str, torch.Tensor] | None = vars(module).get("prefix")
    if given is not None:
        return given
    buffers = {name: module._buffers.get(f"prefix_{name}") for name in ("key", "value")}
    return {name: held for name, held in buffers.items() if held is not None}


def _by_token(mixed: torch.Tensor, heads: int) -> torch.Tensor:
    """Mixed values [batch, groups, heads / groups * T, head] as [batch, T, heads, head]."""
    return mixed.reshape(mixed.shape[0], heads, -1, mixed.shape[3]).transpose(1, 2)


def _grouped(weights: torch.Tensor, groups: int) -> torch.Tensor:
    """Weights [batch, heads, T, K] as [batch, groups, heads / groups * T, K]."""
    return weights.reshape(weights.shape[0], groups, -1, weights.shape[3])


def _scores(
    query: torch.Tensor,
    key: torch.Tensor,
    heads: int,
    softcap: float | None,
    piece: int = PIECE,
) -> torch.Tensor:
    """Scores [batch, heads, T, K] of queries [batch, groups, heads / groups * T, head] on keys
    [..., head, K]: the sum over pieces of the head, each of them one block of a matrix product."""
    if query.shape[3] <= piece:
        scores = torch.matmul(query, key)
    else:
        pieces = zip(query.split(piece, 3), key.split(piece, -2), strict=True)
        scores = functools.reduce(torch.add, (torch.matmul(q, k) for q, k in pieces))
    scores = scores.reshape(scores.shape[0], heads, -1, scores.shape[3])
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def columns(value: torch.Tensor) -> torch.Tensor:
    """Values [..., K, head] as blocks of columns [..., blocks, K, COLUMNS]. The last block is ones,
    with which the product that mixes the values sums the weights too."""
    ones = torch.ones(*value.shape[:-1], COLUMNS + -value.shape[-1] % COLUMNS)
    whole = torch.cat([value, ones], -1)
    blocks: torch.Tensor = whole.unflatten(-1, (-1, COLUMNS))
    return blocks.transpose(-3, -2)


def _sums(weights: torch.Tensor, value: torch.Tensor, groups: int) -> torch.Tensor:
    """Products [batch, groups, heads / groups * T, head + COLUMNS] of weights [batch, heads, T, K]
    and values, which come in blocks of columns [..., groups, blocks, K, COLUMNS] or whole [K,
    head + COLUMNS]."""
    weights = _grouped(weights, groups)
    if value.dim() == 2:
        return torch.matmul(weights, value)
    blocks = torch.matmul(weights.unsqueeze(2), value)
    return blocks.transpose(2, 3).flatten(3)


def _window(position_ids: torch.Tensor | None, size: int) -> _Window:
    if position_ids is None:
        raise UnsupportedError(
            "this version of transformers does not tell a windowed attention where its tokens "
            "stand; install one that this release supports"
        )
    return _Window(position_ids, size)


def _near(window: _Window, keys: torch.Tensor) -> torch.Tensor:
    """Whether a key's position [1 or batch, K] lies inside each query's window, bool
    [1 or batch, 1, T, K]."""
    distance = window.positions.unsqueeze(2) - keys.unsqueeze(1)
    return (distance < window.size).unsqueeze(1)


def _masked(scores: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    return torch.where(visible, scores, torch.finfo(scores.dtype).min)


def compile_prefix(body: nn.Module, prefix: PrefixCache, attention: str) -> None:
    """Give each attention layer of `body` its share of the prefix, as buffers: keys [kv_heads,
    head, P] and values [kv_heads, P, head].

    For `STEADY` attention values come in blocks of columns; those of a lone group as plain matrices
    [head, P] and [P, head + COLUMNS], which ONNX Runtime packs once and always cuts in the same
    way.
    """
    if not prefix.keys:
        return
    layers = layers_of(body)
    require(len(layers) == len(prefix.keys), f"the prefix's keys in each of {len(layers)} layers")
    for layer, key, value in zip(layers, prefix.keys, prefix.values, strict=True):
        keys, values = key.transpose(1, 2), value
        if attention == STEADY:
            values = columns(value)
            if len(key) == 1:
                keys, values = keys[0], values[0].transpose(0, 1).flatten(1)
        module = attention_of(layer)
        module.register_buffer("prefix_key", keys.contiguous())
        module.register_buffer("prefix_value", values.contiguous())


AttentionInterface.register(STEADY, attend)
AttentionInterface.register(PLAIN, attend_plainly)
