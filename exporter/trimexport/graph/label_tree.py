"""The tree behind the text inside the graph, of labels that are read whole or of several questions:
who sees whom, and scores from logits."""

from __future__ import annotations

import functools

import torch
from torch import nn

from trimexport.prompt.label_trie import Trie

NOWHERE = -1e9
"""The logit of a child that a branch does not have."""


class LabelTree(nn.Module):
    """Tree attention over the trie's nodes, which stand in each row right behind the prompt, and
    the labels' scores from the logits at its branches: log-probabilities, or logits as they are
    where the trie says so.

    Buffers, N nodes, K branches with at most C children, R rows of the head, S sequences that
    branch D times at most:
        seen: int64 [(N + 1)²], whether one node (or, 0, any other token) sees another.
        shift: int64 [N + 1], from a node's place in its row to its position.
        options: int64 [K * C], where a branch's children are among its R + 1 logits.
        steps: int64 [D, S], where a sequence's branches are among the K * C + 1 probabilities.
        unscaled: bool [K, 1], at which branches logits are taken as they are; None at no one.
    """

    seen: torch.Tensor
    shift: torch.Tensor
    options: torch.Tensor
    steps: torch.Tensor
    unscaled: torch.Tensor | None

    def __init__(self, trie: Trie) -> None:
        super().__init__()
        self.nodes = len(trie.token_ids)
        self.branches = len(trie.branches)
        self.register_buffer("seen", _lines(trie).flatten())
        shift = [0, *(depth - 1 - place for place, depth in enumerate(trie.depths))]
        self.register_buffer("shift", torch.tensor(shift))
        options, steps = _tables(trie)
        self.register_buffer("options", options)
        self.register_buffer("steps", steps)
        taken = [[branch in trie.unscaled] for branch in range(self.branches)]
        self.register_buffer("unscaled", torch.tensor(taken) if trie.unscaled else None)

    def among(
        self, position: torch.Tensor, seen: torch.Tensor, last: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and mask of rows that hold the trie: see the function `among`."""
        return among(position, seen, last, self.seen, self.shift)

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """The score of each sequence, float32 [batch, S], from the logits of every row of the head
        at every branch, float32 [batch, K, R]; a lone branch may have copies behind it."""
        if self.branches == 1:
            logits = logits[:, :1]
        none = torch.full_like(logits[:, :, :1], NOWHERE)
        own = torch.cat([logits, none], 2).flatten(1).index_select(1, self.options)
        own = own.unflatten(1, (self.branches, -1))
        shares = own.log_softmax(2)
        chosen = shares if self.unscaled is None else torch.where(self.unscaled, own, shares)
        chosen = chosen.flatten(1)
        chosen = torch.cat([chosen, torch.zeros_like(chosen[:, :1])], 1)
        taken = chosen.index_select(1, self.steps.flatten()).unflatten(1, self.steps.shape)
        score: torch.Tensor = functools.reduce(torch.add, taken.unbind(1))
        return score


def among(
    position: torch.Tensor,
    seen: torch.Tensor,
    last: torch.Tensor,
    lines: torch.Tensor,
    shift: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions and mask of rows that hold a tree of N nodes.

    Args:
        position: int64 [1, T], places in a row.
        seen: bool [1, 1, T, T], whether a query sees a key under causal attention.
        last: int64 [batch, 1], the place of the prompt's last token.
        lines, shift: int64 [(N + 1)²] and [N + 1], as `LabelTree.seen` and `LabelTree.shift`.

    Returns:
        int64 [batch, T]: a node stands where its depth says; bool [batch, 1, T, T]: a node sees
        the prompt, the text and its own ancestors.
    """
    count = shift.shape[0]
    behind = position - last
    node = torch.where(torch.logical_and(behind > 0, behind < count), behind, 0)
    pairs = node.unsqueeze(2) * count + node.unsqueeze(1)
    own = lines[pairs] != 0
    # Padding, which no token sees, must have a position that the model has.
    places = torch.where(behind >= count, 0, position + shift[node])
    return places, torch.logical_and(seen, own.unsqueeze(1))


def _lines(trie: Trie) -> torch.Tensor:
    """int64 [N + 1, N + 1]: 1 where a node (from 1) sees another; all see 0, which sees itself."""
    seen = torch.zeros(len(trie.token_ids) + 1, len(trie.token_ids) + 1, dtype=torch.int64)
    seen[:, 0] = 1
    for place in range(len(trie.token_ids)):
        for above in trie.nodes_to(place):
            seen[1 + place, 1 + above] = 1
    return seen


def _tables(trie: Trie) -> tuple[torch.Tensor, torch.Tensor]:
    """The buffers `options` and `steps` of `LabelTree`."""
    total = sum(map(len, trie.rows))
    most = max(map(len, trie.rows))
    options = torch.full((len(trie.rows), most), total)
    place_of = []  # of each row, among the K * C
    row = 0
    for branch, below in enumerate(trie.rows):
        for child in range(len(below)):
            options[branch, child] = row
            place_of.append(branch * most + child)
            row += 1
    options += torch.arange(len(trie.rows)).unsqueeze(1) * (total + 1)
    longest = max(map(len, trie.paths))
    steps = torch.full((longest, len(trie.paths)), len(trie.rows) * most)
    for sequence, path in enumerate(trie.paths):
        for step, taken in enumerate(path):
            steps[step, sequence] = place_of[taken]
    return options.flatten(), steps
