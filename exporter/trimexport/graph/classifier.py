"""The classifier as one module, and its trace to ONNX.

The module is what the bundle runs: it takes a text's own tokens and returns one logit per label,
or the one that a score makes of them.
It is traced with fake tensors, so no weight is in memory while its graph is made.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from trimexport.model.head import TrimmedHead
from trimexport.prompt.label_trie import Trie
from trimexport_runtime.score import LOG_ODDS, Score

from .label_tree import LabelTree
from .task_inputs import TEXT, Taken

# A product with one row is computed in another order than one with several, so where only the last
# token of each text is left there are two of it, and one text alone is answered as among others.
COPIES = 2


class CompiledClassifier(nn.Module):
    """Text tokens in, label logits out; the prompt is inside.

    Args:
        body: the decoder without its output layer, the prefix compiled into its attention.
        head: the cut output layer, one row per label token.
        group_sizes: how many of the head's rows, or of the tree's sequences, belong to each label.
        prefix_length: how many positions the compiled prefix takes.
        lead_ids: tokens written before each text (see `split_prefix`).
        suffix_ids: tokens written after each text.
        trie: of the labels' tokens, where their first ones do not tell them apart, or of several
            questions.
        score: what is made of the labels' logits; None leaves them as they are.
        mean: the head reads the mean of the hidden states of each text's own tokens, and zeros for
            an empty text, not the last one.
    """

    lead_ids: torch.Tensor
    behind_ids: torch.Tensor
    picks: torch.Tensor

    def __init__(
        self,
        body: nn.Module,
        head: TrimmedHead,
        group_sizes: Sequence[int],
        prefix_length: int,
        lead_ids: Sequence[int],
        suffix_ids: Sequence[int],
        trie: Trie | None = None,
        score: Score | None = None,
        *,
        mean: bool = False,
    ) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.group_sizes = tuple(group_sizes)
        self.score = ("", 1.0, 0.0) if score is None else (score.kind, score.scale, score.shift)
        self.prefix_length = prefix_length
        self.mean = mean
        self.register_buffer("lead_ids", torch.tensor([list(lead_ids)], dtype=torch.int64))
        self.tree = None if trie is None else LabelTree(trie)
        self.answer_at = len(lead_ids) + len(suffix_ids) - 1  # places after a text's own tokens
        behind = [*suffix_ids, *(() if trie is None else trie.token_ids)]
        self.register_buffer("behind_ids", torch.tensor([behind], dtype=torch.int64))
        # Places after the prompt's last token, of the hidden states that the head reads.
        picks = [0] if trie is None else [1 + place for place in trie.branches]
        self.register_buffer("picks", torch.tensor(picks * COPIES if len(picks) == 1 else picks))

    @property
    def inputs(self) -> Mapping[str, Taken]:
        """What `forward` takes, in its order."""
        return TEXT

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Both int64 [batch, sequence], any padding -> float32 [batch, outputs]."""
        ids, last = self.place(input_ids, attention_mask)
        position = torch.arange(ids.shape[1]).unsqueeze(0)
        seen = (position.unsqueeze(1) <= position.unsqueeze(2)).unsqueeze(1)
        if self.tree is not None and self.tree.nodes:
            position, seen = self.tree.among(position, seen, last)
        hidden = self.body(
            input_ids=ids,
            attention_mask=seen,
            position_ids=position + self.prefix_length,
            use_cache=False,
        ).last_hidden_state
        if self.mean:
            states = self.mean_of(hidden, last)
        else:
            places = (last + self.picks).clamp(min=0)
            states = hidden.gather(1, places.unsqueeze(2).expand(-1, -1, hidden.shape[2]))
        logits = self.head(states.reshape(-1, hidden.shape[-1]))
        logits = logits.unflatten(0, (-1, len(self.picks)))
        scores = logits.select(1, 0) if self.tree is None else self.tree.scores(logits)
        return score_of(combine_words(scores, self.group_sizes), *self.score)

    def mean_of(self, hidden: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """COPIES of the mean of the hidden states [batch, T, hidden] of each text's own tokens,
        [batch, COPIES, hidden]; `last` is the index of the prompt's last token. A product sums in
        the order of the tokens, whatever padding there is behind them."""
        count = last - self.answer_at
        place = torch.arange(hidden.shape[1]).unsqueeze(0) - self.lead_ids.shape[1]
        own = ((place >= 0) & (place < count)).to(hidden.dtype)
        total = torch.matmul(own.unsqueeze(1).expand(-1, COPIES, -1), hidden)
        return total / count.clamp(min=1).to(hidden.dtype).unsqueeze(2)

    def place(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move each row's real tokens to the front and write the suffix right behind them, and
        the trie's tokens behind that.

        Returns:
            ids int64 [batch, lead + sequence + suffix + trie], each row a permutation of lead,
            text, suffix, trie and then padding, which under causal attention no real token sees;
            and the index of the prompt's last token in each row, int64 [batch, 1], which is -1
            where there is no token at all.
        """
        batch = input_ids.shape[0]
        real = (attention_mask != 0).to(torch.int64)
        count = real.sum(1, keepdim=True)
        lead, behind = self.lead_ids.shape[1], self.behind_ids.shape[1]
        kept = real.cumsum(1) - 1
        padding = count + behind - 1 + torch.arange(real.shape[1]) - kept
        target = torch.where(real != 0, kept, padding)
        ids = input_ids
        if behind:
            target = torch.cat([target, count + torch.arange(behind)], 1)
            ids = torch.cat([ids, self.behind_ids.expand(batch, -1)], 1)
        elif not lead:  # so that a row is never a single token: see COPIES
            target = torch.cat([target, torch.full_like(count, ids.shape[1])], 1)
            ids = torch.cat([ids, ids[:, :1]], 1)
        ids = torch.scatter(ids, 1, target, ids)
        if lead:
            ids = torch.cat([self.lead_ids.expand(batch, -1), ids], 1)
        return ids, count + self.answer_at


def split_prefix(
    prefix_ids: Sequence[int], suffix_ids: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split the prefix into the part that becomes keys and values and the part that runs.

    Without a suffix an empty text is answered after the prefix's last token, whose hidden state
    must then be computed, so that token runs with each text.
    """
    ids = tuple(prefix_ids)
    return (ids, ()) if suffix_ids else (ids[:-1], ids[-1:])


def score_of(logits: torch.Tensor, kind: str, scale: float, shift: float) -> torch.Tensor:
    """What a graph returns, [batch, outputs], of the labels' logits [batch, labels]: of two that
    make log-odds the first less the second, else each; times `scale` plus `shift`."""
    if kind == LOG_ODDS:
        logits = logits[:, :1] - logits[:, 1:]
    if scale != 1:
        logits = logits * scale
    return logits if shift == 0 else logits + shift


def combine_words(logits: torch.Tensor, group_sizes: Sequence[int]) -> torch.Tensor:
    """Label logits from label token logits [batch, tokens]: log-sum-exp over a label's words, so
    that a label's probability is the sum of its words'."""
    if all(size == 1 for size in group_sizes):
        return logits
    count, most = sum(group_sizes), max(group_sizes)
    ends = list(itertools.accumulate(group_sizes))
    own = [list(range(end - size, end)) for size, end in zip(group_sizes, ends, strict=True)]
    places = torch.tensor([[*words, *[count] * (most - len(words))] for words in own])
    none = torch.full_like(logits[:, :1], torch.finfo(logits.dtype).min)
    by_label = torch.cat([logits, none], 1).index_select(1, places.flatten())
    combined: torch.Tensor = by_label.unflatten(1, places.shape).logsumexp(2)
    return combined
