"""The untrimmed model in PyTorch float32, one layer in memory at a time.

The model's own forward runs, with weights that arrive just before a layer needs them and leave
right after. It computes two things: the prefix's keys and values, which are compiled into the
graph, and the reference that every variant is compared with.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache
from transformers.pytorch_utils import Conv1D

from trimexport.source.checkpoint import Checkpoint
from trimexport.source.empty_model import (
    body_of,
    layers_of,
    make_skeleton,
    module_name,
    output_layer,
    parameter_names,
    set_tensor,
)
from trimexport.source.families import reference_attention

from .head import TrimmedHead, head_of

# Tokens that go through the layers in one pass over the checkpoint, and through a layer at once.
TOKENS_PER_PASS = 16_384
TOKENS_PER_STEP = 512
VOCABULARY_BLOCK = 8_192
ROWS_PER_HEAD = 1_024  # that a block of the vocabulary is multiplied with at once


@dataclass(frozen=True)
class PrefixCache:
    """Keys (after the rotary embedding) and values of the prefix, per layer [kv_heads, P, head]."""

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Reference:
    """What the untrimmed model says at the last position of each sequence.

    `token_logits`: float32 [n, tokens], full-vocabulary logits at the tokens asked for;
    `log_normaliser`: float32 [n], log of the sum of exp over the whole vocabulary; `hidden`:
    float32 [n, hidden], what the output layer reads.
    """

    token_logits: torch.Tensor
    log_normaliser: torch.Tensor
    hidden: torch.Tensor


class LayerwiseModel:
    """A skeleton whose layers load themselves from a checkpoint while they run."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.model: Any = make_skeleton(checkpoint, reference_attention(checkpoint.config))
        self.names = parameter_names(self.model, checkpoint)
        self.body: Any = body_of(self.model)
        self.head_name = module_name(self.model, output_layer(self.model))
        # Of the sequences that go through the layers, and those of them that are in one now.
        self._lengths, self._rows = torch.zeros(0, dtype=torch.int64), slice(0)
        self._stream_embedding()
        for module in self._blocks():
            self._stream(module)

    @torch.no_grad()
    def prefix_cache(self, prefix_ids: Sequence[int]) -> PrefixCache:
        """Run the prefix once and keep every layer's keys and values."""
        cache = DynamicCache()
        if prefix_ids:
            self.body(
                input_ids=torch.tensor([list(prefix_ids)]), past_key_values=cache, use_cache=True
            )
        layers: list[Any] = list(cache.layers)
        return PrefixCache(
            keys=tuple(layer.keys[0] for layer in layers),
            values=tuple(layer.values[0] for layer in layers),
        )

    @torch.no_grad()
    def reference(
        self,
        sequences: Sequence[Sequence[int]],
        token_ids: Sequence[int],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Reference:
        """Full-vocabulary logits after each sequence, gathered at `token_ids`.

        Args:
            sequences: whole prompts as token ids, none of them empty.
            token_ids: the vocabulary tokens whose logits are wanted.
            progress: called with the number of sequences done since the last call.
        """
        hidden = self.hidden_states(sequences, progress)
        token_logits, log_normaliser = self.read_vocabulary(hidden, token_ids)
        return Reference(token_logits, log_normaliser, hidden)

    @torch.no_grad()
    def hidden_states(
        self,
        sequences: Sequence[Sequence[int]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> torch.Tensor:
        """What the output layer reads after each sequence: float32 [n, hidden]. Arguments as in
        `reference`."""
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        states = torch.empty(len(sequences), self.checkpoint.config.hidden_size)
        for group in _passes(order, sequences):
            states[group] = self._last_hidden([sequences[i] for i in group])
            progress(len(group))
        return states

    @torch.no_grad()
    def read_vocabulary(
        self, hidden: torch.Tensor, token_ids: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the whole output layer makes of hidden states [n, hidden]: logits at `token_ids`,
        float32 [n, tokens], and the log of the sum of exp over all, float32 [n]."""
        parts = [self._head(rows, token_ids) for rows in hidden.split(ROWS_PER_HEAD)]
        logits, normalisers = zip(*parts, strict=True)
        return torch.cat(logits), torch.cat(normalisers)

    @torch.no_grad()
    def head_blocks(self, hidden: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """The whole output layer, a block of the vocabulary at a time: the block's first token, and
        its logits, float32 [n, tokens of the block]."""
        source = self.names[self.head_name + ".weight"]
        bias_source = self.names.get(self.head_name + ".bias")
        softcap = self.checkpoint.softcap
        rows = self.checkpoint.tensors[source].shape[0]
        for start in range(0, rows, VOCABULARY_BLOCK):
            stop = min(start + VOCABULARY_BLOCK, rows)
            logits = hidden @ self.checkpoint.read(source, start, stop).T
            if bias_source is not None:
                logits = logits + self.checkpoint.read(bias_source, start, stop)
            if softcap is not None:
                logits = softcap * torch.tanh(logits / softcap)
            yield start, logits

    def cut_head(self, rows: Sequence[int]) -> TrimmedHead:
        """`head.trim_head`, with the rows read from the checkpoint instead of a module."""
        read = self.checkpoint.read_rows
        bias = self.names.get(self.head_name + ".bias")
        return head_of(
            read(self.names[self.head_name + ".weight"], rows),
            None if bias is None else read(bias, rows),
            self.checkpoint.softcap,
        )

    @torch.no_grad()
    def activations(
        self,
        sequences: Sequence[Sequence[int]],
        skip: int,
        progress: Callable[[int], None] = lambda done: None,
        change: Callable[[str, torch.Tensor], torch.Tensor] = lambda name, inputs: inputs,
    ) -> dict[str, torch.Tensor]:
        """The largest absolute value of each input of every matrix in the layers.

        Args:
            sequences: whole prompts as token ids.
            skip: how many positions at the beginning are left out: the compiled prefix's, which the
                graph does not compute. First tokens are often unlike all others.
            progress: called with the number of sequences done since the last call.
            change: called with a matrix's name and its inputs [..., inputs], and returns what is
                looked at.

        Returns:
            parameter name within the body, with `body.` before it -> float32 [inputs].
        """
        found: dict[str, torch.Tensor] = {}

        def look(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            sizes = change(name, inputs[0]).abs()
            place = torch.arange(sizes.shape[1])
            seen = (place >= skip) & (place < self._lengths[self._rows].unsqueeze(1))
            largest = sizes[seen].amax(0)
            found[name] = torch.maximum(found.get(name, largest), largest)

        hooks = [
            module.register_forward_pre_hook(functools.partial(look, f"body.{name}.weight"))
            for name, module in self.body.named_modules()
            if isinstance(module, nn.Linear | Conv1D)
        ]
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        for group in _passes(order, sequences):
            self._last_hidden([sequences[i] for i in group])
            progress(len(group))
        for hook in hooks:
            hook.remove()
        return found

    def _last_hidden(self, sequences: list[Sequence[int]]) -> torch.Tensor:
        """Hidden states after the final norm at each row's last token [n, hidden].

        Rows are padded to the right with their last token; under causal attention no real token
        sees the padding.
        """
        width = max(map(len, sequences))
        ids = torch.empty(len(sequences), width, dtype=torch.int64)
        for row, sequence in enumerate(sequences):
            ids[row] = sequence[-1]
            ids[row, : len(sequence)] = torch.tensor(list(sequence))
        self._lengths = torch.tensor([len(sequence) for sequence in sequences])
        hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state
        return hidden[torch.arange(len(sequences)), self._lengths - 1]  # type: ignore[no-any-return]

    def _head(
        self, hidden: torch.Tensor, token_ids: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the whole output layer gathered at `token_ids`, and the log of the sum of exp
        over all."""
        wanted = torch.tensor(list(token_ids), dtype=torch.int64)
        gathered = torch.empty(len(hidden), len(token_ids))
        normaliser = torch.full((len(hidden),), -torch.inf)
        for start, logits in self.head_blocks(hidden):
            normaliser = torch.logaddexp(normaliser, logits.logsumexp(-1))
            here = (wanted >= start) & (wanted < start + logits.shape[1])
            gathered[:, here] = logits[:, wanted[here] - start]
        return gathered, normaliser

    def _blocks(self) -> Iterator[nn.Module]:
        """Every module of the body that is loaded as a whole: each layer, and what is left."""
        layers = layers_of(self.body)
        yield from layers
        embedding = self.model.get_input_embeddings()
        for child in self.body.children():
            if child is not layers and child is not embedding and list(child.parameters()):
                yield child

    def _stream(self, module: nn.Module) -> None:
        """Load `module`'s weights before it runs, feed it few tokens at a time, free them after."""
        prefix = module_name(self.model, module)
        names = [f"{prefix}.{name}" for name, _ in module.named_parameters()]
        forward = module.forward

        def streamed(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            for name in names:
                set_tensor(self.model, name, self.checkpoint.read(self.names[name]))
            try:
                step = max(1, TOKENS_PER_STEP // hidden.shape[1])
                parts = []
                for start in range(0, len(hidden), step):
                    rows = self._rows = slice(start, start + step)
                    pick = functools.partial(_rows_of, batch=len(hidden), rows=rows)
                    options = {name: pick(value) for name, value in kwargs.items()}
                    part = forward(hidden[rows], *map(pick, args), **options)
                    parts.append(part[0] if isinstance(part, tuple) else part)
                whole = torch.cat(parts)
                return (whole,) if isinstance(part, tuple) else whole
            finally:
                for name in names:
                    shape = self.checkpoint.tensors[self.names[name]].shape
                    set_tensor(self.model, name, torch.empty(shape, device="meta"))

        module.forward = streamed

    def _stream_embedding(self) -> None:
        """Read only the rows of the embedding that the sequences use."""
        embedding = self.model.get_input_embeddings()
        name = module_name(self.model, embedding) + ".weight"
        source = self.names[name]
        embedding.padding_idx = None  # it matters to gradients only, and is not a row's number here
        forward = embedding.forward

        def streamed(ids: torch.Tensor) -> torch.Tensor:
            used, compact = torch.unique(ids, return_inverse=True)
            embedding._parameters["weight"] = nn.Parameter(
                self.checkpoint.read_rows(source, used.tolist()), requires_grad=False
            )
            try:
                return forward(compact)  # type: ignore[no-any-return]
            finally:
                shape = self.checkpoint.tensors[source].shape
                set_tensor(self.model, name, torch.empty(shape, device="meta"))

        embedding.forward = streamed


def _rows_of(value: Any, batch: int, rows: slice) -> Any:
    """The given rows of what a layer is called with, where it has a row for each of the batch: a
    mask does in some versions of transformers, rotary tables and single rows for all do not."""
    if isinstance(value, torch.Tensor) and value.dim() > 1 and len(value) == batch:
        return value[rows]
    return value


def _passes(order: list[int], sequences: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Cut indices sorted by length into groups whose padded size stays under the budget."""
    group: list[int] = []
    for index in order:
        if group and (len(group) + 1) * len(sequences[index]) > TOKENS_PER_PASS:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
