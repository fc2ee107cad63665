"""A task as the arrays that a backbone's graph takes (see `task_inputs`)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from trimexport.model.head import TrimmedHead
from trimexport.model.layerwise import PrefixCache
from trimexport.planning import Plan
from trimexport.prompt.label_trie import Trie
from trimexport_runtime.bundle import LOG_ODDS, Score

from .classifier import COPIES, split_prefix
from .label_tree import LabelTree
from .prefix_attention import columns
from .task_inputs import CORRECTION, HIDDEN, head_blocks

Arrays = dict[str, torch.Tensor]


def task_arrays(
    planned: Plan, prefix: PrefixCache, head: TrimmedHead, layers: Sequence[tuple[int, int]]
) -> Arrays:
    """The arrays of a task, float32 and int64.

    Args:
        layers: as in `task_inputs`.
        prefix: of the ids that `split_prefix` gives.
        head: cut to the plan's rows.
    """
    _, lead = split_prefix(planned.prompt.prefix_ids, planned.prompt.suffix_ids)
    blocks = head_blocks(head.weight.detach().numpy(), head.bias.detach().numpy())
    suffix, trie = planned.prompt.suffix_ids, planned.trie
    behind = [*suffix, *(() if trie is None else trie.token_ids)]
    if not behind and not lead:  # a row is never a single token: see `classifier.COPIES`
        behind = [planned.tokenizer.pad_token_id]
    return {
        **_prefix(prefix, layers),
        "lead_ids": torch.tensor([lead], dtype=torch.int64),
        "behind_ids": torch.tensor([behind], dtype=torch.int64),
        "answer_at": torch.tensor([len(lead) + len(suffix) - 1]),
        **_labels(len(head.bias), blocks["head_bias"].size, trie),
        CORRECTION: torch.zeros(
            _copies(trie) * (1 if trie is None else len(trie.branches)), head.in_features
        ),
        **{name: torch.from_numpy(array) for name, array in blocks.items()},
        "finished": torch.ones(blocks["head_bias"].shape, dtype=torch.int64),
        **_words(planned.group_sizes),
        **_score(planned.score, len(planned.labels)),
    }


def _prefix(prefix: PrefixCache, layers: Sequence[tuple[int, int]]) -> Arrays:
    """The prefix; a hidden position stands for one of no tokens."""
    if not prefix.keys:
        none = tuple(torch.zeros(heads, 1, size) for heads, size in layers)
        arrays = {**_prefix(PrefixCache(none, none), layers), "prefix_count": torch.tensor([0])}
        return {**arrays, "prefix_bias": torch.tensor([HIDDEN])}
    length = prefix.keys[0].shape[1]
    arrays = {"prefix_bias": torch.zeros(length), "prefix_count": torch.tensor([length])}
    for place, (key, value) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
        arrays[f"prefix_key.{place}"] = key.transpose(1, 2).contiguous()
        arrays[f"prefix_value.{place}"] = columns(value).contiguous()
    return arrays


def _labels(rows: int, none: int, trie: Trie | None) -> Arrays:
    """Where the head reads, and how its logits become those of sequences: each row's own logit, or
    what the tree of labels says. `none` is the option that stands for no row."""
    if trie is None:
        return {
            "tree_seen": torch.ones(1, 1, dtype=torch.int64),
            "tree_shift": torch.zeros(1, dtype=torch.int64),
            "picks": torch.zeros(COPIES, dtype=torch.int64),
            "options": torch.arange(rows).expand(COPIES, -1).contiguous(),
            "normalised": torch.zeros(COPIES, 1),
            "steps": torch.arange(rows).unsqueeze(0),
        }
    tree = LabelTree(trie)
    total, count = rows + 1, tree.branches
    options = tree.options.unflatten(0, (count, -1)) - torch.arange(count).unsqueeze(1) * total
    copies = _copies(trie)
    size = count * options.shape[1]
    return {
        "tree_seen": tree.seen.unflatten(0, (tree.nodes + 1, -1)),
        "tree_shift": tree.shift,
        "picks": torch.tensor([1 + place for place in trie.branches] * copies),
        "options": torch.where(options == rows, none, options).repeat(copies, 1),
        "normalised": torch.tensor(
            [[float(branch not in trie.unscaled)] for branch in range(count)] * copies
        ),
        "steps": torch.where(tree.steps == size, size * copies, tree.steps),
    }


def _copies(trie: Trie | None) -> int:
    """How often each place is read: see `classifier.COPIES`."""
    return COPIES if trie is None or len(trie.branches) == 1 else 1


def _words(group_sizes: Sequence[int]) -> Arrays:
    """Which sequences each label has."""
    total, most = sum(group_sizes), max(group_sizes)
    ends = list(itertools.accumulate(group_sizes))
    own = [list(range(end - size, end)) for size, end in zip(group_sizes, ends, strict=True)]
    return {"words": torch.tensor([[*each, *[total] * (most - len(each))] for each in own])}


def _score(score: Score, labels: int) -> Arrays:
    """What the outputs are of the labels' logits, of which number `labels` is 0."""
    plus, minus = list(range(labels)), [labels] * labels
    if score.kind == LOG_ODDS:
        plus, minus = [0], [1]
    return {
        "plus": torch.tensor(plus),
        "minus": torch.tensor(minus),
        "scale": torch.tensor([score.scale]),
        "shift": torch.full((len(plus),), score.shift),
    }
