"""Weights that arrive just before a module runs and leave right after."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trimexport.source.checkpoint import Checkpoint
from trimexport.source.empty_model import layers_of, module_name, set_tensor

from .shared_prefix import SharedPrefix

TOKENS_PER_PASS = 16_384  # that go through the layers in one pass over the checkpoint
TOKENS_PER_STEP = 512  # that go through a layer at once
KEYS_PER_STEP = 16_384  # that a layer looks at at once, those of a shared prefix among them


@dataclass(frozen=True)
class Weights:
    """A skeleton, the checkpoint that its weights are in, and what that calls each parameter."""

    model: Any
    checkpoint: Checkpoint
    names: Mapping[str, str]

    def load(self, name: str) -> None:
        """Give the skeleton's parameter `name` its values."""
        set_tensor(self.model, name, self.checkpoint.read(self.names[name]))

    def free(self, name: str) -> None:
        """Leave the parameter `name` with a shape alone."""
        shape = self.checkpoint.tensors[self.names[name]].shape
        set_tensor(self.model, name, torch.empty(shape, device="meta"))


def blocks_of(model: Any, body: Any) -> Iterator[nn.Module]:
    """Every module of a body that is loaded as a whole: each layer, and what is left."""
    layers = layers_of(body)
    yield from layers
    embedding = model.get_input_embeddings()
    for child in body.children():
        if child is not layers and child is not embedding and list(child.parameters()):
            yield child


def stream(module: nn.Module, weights: Weights, now: Callable[[slice], None]) -> None:
    """Load a module's weights before it runs, feed it few tokens at a time, free them after. `now`
    is told which rows of the batch go in next."""
    prefix = module_name(weights.model, module)
    names = [f"{prefix}.{name}" for name, _ in module.named_parameters()]
    forward = module.forward

    def streamed(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        for name in names:
            weights.load(name)
        try:
            length = hidden.shape[1]
            keys = length + _kept_keys(kwargs)
            step = max(1, min(TOKENS_PER_STEP // length, KEYS_PER_STEP // keys))
            parts = []
            for start in range(0, len(hidden), step):
                rows = slice(start, start + step)
                now(rows)
                pick = functools.partial(_rows_of, batch=len(hidden), rows=rows)
                options = {name: pick(value) for name, value in kwargs.items()}
                part = forward(hidden[rows], *map(pick, args), **options)
                parts.append(part[0] if isinstance(part, tuple) else part)
            whole = torch.cat(parts)
            return (whole,) if isinstance(part, tuple) else whole
        finally:
            for name in names:
                weights.free(name)

    module.forward = streamed


def stream_embedding(weights: Weights) -> None:
    """Let the embedding read only the rows that the sequences use."""
    embedding = weights.model.get_input_embeddings()
    name = module_name(weights.model, embedding) + ".weight"
    source = weights.names[name]
    embedding.padding_idx = None  # it matters to gradients only, and is not a row's number here
    forward = embedding.forward

    def streamed(ids: torch.Tensor) -> torch.Tensor:
        used, compact = torch.unique(ids, return_inverse=True)
        embedding._parameters["weight"] = nn.Parameter(
            weights.checkpoint.read_rows(source, used.tolist()), requires_grad=False
        )
        try:
            return forward(compact)  # type: ignore[no-any-return]
        finally:
            weights.free(name)

    embedding.forward = streamed


def _rows_of(value: Any, batch: int, rows: slice) -> Any:
    """The given rows of what a layer is called with, where it has a row for each of the batch: a
    mask does in some versions of transformers, rotary tables and single rows for all do not."""
    if isinstance(value, torch.Tensor) and value.dim() > 1 and len(value) == batch:
        return value[rows]
    return value


def _kept_keys(options: Mapping[str, Any]) -> int:
    """How many keys a layer that is called with `options` finds in its cache."""
    caches = [value for value in options.values() if isinstance(value, SharedPrefix)]
    return caches[0].get_seq_length() if caches else 0


def passes(sequences: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The places of sequences, the short ones first, in groups whose padded size stays under the
    budget."""
    group: list[int] = []
    for index in sorted(range(len(sequences)), key=lambda place: len(sequences[place])):
        if group and (len(group) + 1) * len(sequences[index]) > TOKENS_PER_PASS:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
