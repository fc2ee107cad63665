"""The untrimmed model in PyTorch float32, one layer in memory at a time.

The model's own forward runs, with weights that arrive just before a layer needs them and leave
right after. It computes two things: the prefix's keys and values, which are compiled into the
graph, and the reference that every variant is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from trimexport.errors import CheckpointError, ExportError
from trimexport.source.checkpoint import Checkpoint
from trimexport.source.empty_model import (
    body_of,
    make_skeleton,
    module_name,
    output_layer,
    parameter_names,
)
from trimexport.source.families import finish_of, reference_attention

from .head import TrimmedHead, finished, trim_head
from .shared_prefix import SharedPrefix, common_prefix, share
from .streamed import Weights, blocks_of, passes, stream, stream_embedding
from .virtual_tokens import read_first
from .watched_inputs import last_places, watched

VOCABULARY_BLOCK = 8_192
ROWS_PER_HEAD = 1_024  # that a block of the vocabulary is multiplied with at once
CLOSE = 1e-3  # how far states may be apart, by the norm, of sequences that are read whole too


@dataclass(frozen=True)
class PrefixCache:
    """Keys (after the rotary embedding) and values of the prefix, per layer [kv_heads, P, head]."""

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    @property
    def length(self) -> int:
        """P, how many positions the prefix takes."""
        return self.keys[0].shape[1] if self.keys else 0


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
    """A skeleton whose layers load themselves from a checkpoint while they run. Where the
    checkpoint has a trained prompt, the model reads its virtual tokens before all others.

    The state of a sequence, which its output layer reads, is the last hidden one; or the mean of
    the hidden ones behind its first `mean_behind` ids, if that is given, and zeros where there is
    none."""

    def __init__(self, checkpoint: Checkpoint, mean_behind: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.mean_behind = mean_behind
        self.model: Any = make_skeleton(checkpoint, reference_attention(checkpoint.config))
        self.names = parameter_names(self.model, checkpoint)
        self.body: Any = body_of(self.model)
        self.head_name = module_name(self.model, output_layer(self.model))
        # Of the sequences that go through the layers, and those of them that are in one now.
        self._lengths, self._rows = torch.zeros(0, dtype=torch.int64), slice(0)
        weights = Weights(self.model, checkpoint, self.names)
        stream_embedding(weights)
        for module in blocks_of(self.model, self.body):
            stream(module, weights, self._now)

    @torch.no_grad()
    def prefix_cache(self, prefix_ids: Sequence[int]) -> PrefixCache:
        """Run the prefix once and keep every layer's keys and values, those of virtual tokens
        first."""
        layers: list[Any] = list(self.read_prefix(prefix_ids).layers)
        cache = PrefixCache(
            keys=tuple(layer.keys[0] for layer in layers),
            values=tuple(layer.values[0] for layer in layers),
        )
        for part in (*cache.keys, *cache.values):
            self._require_finite(part, "keys and values")
        return cache

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
        `reference`.

        What all sequences begin with is read once, and the model keeps its keys and values, as it
        does when it generates. The shortest and the longest sequence are read whole besides.

        Raises:
            ExportError: that makes a difference, so the model's cache is not to be trusted.
        """
        shared = common_prefix(sequences)[: self.mean_behind]
        cache = self.read_prefix(shared)
        rests = [sequence[len(shared) :] for sequence in sequences]
        states = torch.empty(len(rests), self.checkpoint.config.hidden_size)
        for group in passes(rests):
            states[group] = self.states_behind([rests[i] for i in group], cache)
            progress(len(group))
        if rests and cache.get_seq_length():
            lengths = [len(rest) for rest in rests]
            some = sorted({lengths.index(min(lengths)), lengths.index(max(lengths))})
            self._check_cache([sequences[i] for i in some], states[some])
        return states

    @torch.no_grad()
    def read_vocabulary(
        self, hidden: torch.Tensor, token_ids: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Two results of the whole output layer on hidden states [n, hidden]: the logits at
        `token_ids`, float32 [n, tokens], and the log of the sum of exp over all logits, float32
        [n]."""
        parts = [self._head(rows, token_ids) for rows in hidden.split(ROWS_PER_HEAD)]
        logits, normalisers = (torch.cat(each) for each in zip(*parts, strict=True))
        self._require_finite(logits, "logits")
        self._require_finite(normalisers, "logits")
        return logits, normalisers

    @torch.no_grad()
    def head_blocks(self, hidden: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """The logits of the whole output layer, a block of the vocabulary at a time: the block's
        first token, and its logits, float32 [n, tokens of the block]."""
        source = self.names[self.head_name + ".weight"]
        bias_source = self.names.get(self.head_name + ".bias")
        finish = finish_of(self.model)
        rows = self.checkpoint.tensors[source].shape[0]
        for start in range(0, rows, VOCABULARY_BLOCK):
            stop = min(start + VOCABULARY_BLOCK, rows)
            logits = hidden @ self.checkpoint.read(source, start, stop).T
            if bias_source is not None:
                logits = logits + self.checkpoint.read(bias_source, start, stop)
            yield start, finished(logits, finish)

    def cut_head(self, rows: Sequence[int]) -> TrimmedHead:
        """`trim_head` of this model, whose rows are read from the checkpoint."""
        return trim_head(self.model, rows, self._head_rows)

    def _head_rows(self, name: str, rows: Sequence[int]) -> torch.Tensor:
        """Rows of the output layer's `weight` or `bias`, float32."""
        return self.checkpoint.read_rows(self.names[f"{self.head_name}.{name}"], rows)

    @torch.no_grad()
    def show_inputs(
        self,
        sequences: Sequence[Sequence[int]],
        skip: int,
        see: Callable[[str, torch.Tensor], None],
        progress: Callable[[int], None] = lambda done: None,
        prompt_from: int | None = None,
    ) -> torch.Tensor:
        """Show what every matrix in the layers reads. What one layer's read comes together, a few
        sequences at a time; the layers come in their order, again in each pass over the checkpoint.
        Returns what the output layer reads after each sequence, float32 [n, hidden].

        Args:
            sequences: whole prompts as token ids, of which the first `skip` are the same.
            skip: how many ids at the beginning are left out, as virtual tokens are: the compiled
                prefix's, which the graph does not compute. First tokens are unlike all others.
            see: called with the name of a parameter within the body, with `body.` before it, and
                with its inputs, float32 [positions, inputs].
            progress: called with the number of sequences done since the last call.
            prompt_from: the first of those left out that is shown all the same, once, before all
                others; None shows none of them.
        """
        shared = list(sequences[0][:skip]) if sequences else []
        shown = 0 if prompt_from is None else max(0, len(shared) - prompt_from)
        with watched(self.body, see, lambda read: last_places(read, shown)):
            cache = self.read_prefix(shared)
        rests = [sequence[skip:] for sequence in sequences]
        states = torch.empty(len(rests), self.checkpoint.config.hidden_size)
        with watched(self.body, see, self._real_places):
            for group in passes(rests):
                states[group] = self.states_behind([rests[i] for i in group], cache)
                progress(len(group))
        return states

    def _real_places(self, read: torch.Tensor) -> torch.Tensor:
        """Which places of the rows that are in a layer now, [rows, T, ...], are no padding: bool
        [rows, T]."""
        return torch.arange(read.shape[1]) < self._lengths[self._rows].unsqueeze(1)

    def _now(self, rows: slice) -> None:
        """Take note of the rows that are in a layer now."""
        self._rows = rows

    def read_prefix(self, ids: Sequence[int]) -> SharedPrefix:
        """Every layer's keys and values of what others follow: virtual tokens and `ids`."""
        cache = DynamicCache()
        self._read_first(ids, cache)
        return share(cache)

    def _read_first(self, ids: Sequence[int], cache: DynamicCache) -> torch.Tensor:
        """`virtual_tokens.read_first` of this model."""
        trained = self.checkpoint.trained_prompt
        return read_first(self.model, self.body, trained, ids, cache)

    def _check_cache(self, sequences: Sequence[Sequence[int]], states: torch.Tensor) -> None:
        """Raise ExportError unless whole sequences end in `states`, float32 [n, hidden], too."""
        for sequence, state in zip(sequences, states, strict=True):
            self._lengths = torch.tensor([len(sequence)])
            hidden = self._read_first(sequence, DynamicCache())
            whole = self.pooled(hidden[:, -len(sequence) :], 0)[0]
            apart = float((whole - state).norm() / whole.norm())
            if not apart < CLOSE:
                raise ExportError(
                    "the untrimmed model answers otherwise behind keys and values that it keeps "
                    f"than when it reads the whole prompt (its last hidden states are {apart:.2g} "
                    "apart), so its cache cannot be trusted and no prompt compiled from it; "
                    "install a version of transformers that this release was tested with"
                )

    def states_behind(self, sequences: list[Sequence[int]], cache: DynamicCache) -> torch.Tensor:
        """What the output layer reads of each row [n, hidden], behind what `cache` holds.

        Rows are padded to the right with their last token; under causal attention no real token
        sees the padding.
        """
        width = max(map(len, sequences))
        ids = torch.empty(len(sequences), width, dtype=torch.int64)
        for row, sequence in enumerate(sequences):
            ids[row] = sequence[-1]
            ids[row, : len(sequence)] = torch.tensor(list(sequence))
        self._lengths = torch.tensor([len(sequence) for sequence in sequences])
        past = cache if cache.get_seq_length() else None
        output = self.body(input_ids=ids, past_key_values=past, use_cache=past is not None)
        read = cache.get_seq_length() - self.checkpoint.virtual_tokens
        hidden = self.pooled(output.last_hidden_state, read)
        self._require_finite(hidden, "hidden states")
        return hidden

    def pooled(self, hidden: torch.Tensor, read: int) -> torch.Tensor:
        """The states of rows, float32 [n, hidden], from all their hidden states, which come after
        the final norm, [n, T, hidden], behind `read` ids of theirs."""
        if self.mean_behind is None:
            return hidden[torch.arange(len(hidden)), self._lengths - 1]
        place = torch.arange(hidden.shape[1])
        own = (place >= self.mean_behind - read) & (place < self._lengths.unsqueeze(1))
        total = (hidden * own.unsqueeze(2)).sum(1)
        return total / own.sum(1, keepdim=True).clamp(min=1)

    def _require_finite(self, numbers: torch.Tensor, what: str) -> None:
        """Raise CheckpointError if what the model computed is not finite. Its weights are, as they
        are read, so they or the configuration are not what they should be."""
        if not bool(numbers.isfinite().all()):
            raise CheckpointError(
                f"the untrimmed model of {self.checkpoint.directory} computes {what} in float32 "
                "that are not finite numbers, though its weights are; weights and configuration "
                "do not belong together, or are damaged: download them again"
            )

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
