"""Labels that begin alike, scored whole: the trie of their token sequences.

`World politics` and `World sports` share their first token, which therefore cannot tell them apart.
A label's score is then the sum of the log-probabilities of its *branches*: at every node of the
trie where sequences part, the model's distribution over the next token is normalised over the
node's children. That is what greedy decoding constrained to the labels would compare, and the
scores are the logarithms of a distribution over the labels. A node with one child decides nothing.

The trie's inner nodes are written behind the prompt in the same forward pass. Each sees the prompt,
the text and its own ancestors, at the position that its depth gives it (tree attention, as Miao et
al. 2023, SpecInfer, use it to verify drafts), so what the model computes at a node is what it
computes of that one sequence alone. Leaves are never read: the head's rows stand for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ROOT = -1
"""The place of the root, which is the prompt's last token and no node of its own."""


@dataclass(frozen=True)
class Trie:
    """What the graph appends, and how the scores are made of it.

    `token_ids` are those of the appended nodes, parents before children, and `parents` the places
    of their parents, `ROOT` for the prompt's end. `branches` are the places whose next token is
    read: the root first, and every node where sequences part. `rows` are the tokens of each one's
    children, none where there is a lone child: all of them, in order, are the rows of the trimmed
    head. `paths` says for each sequence which of these rows it takes.
    """

    token_ids: tuple[int, ...]
    parents: tuple[int, ...]
    branches: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    paths: tuple[tuple[int, ...], ...]

    @property
    def depths(self) -> tuple[int, ...]:
        """How many positions behind the prompt's last token each node stands, from 1."""
        return tuple(len(self.line(place)) for place in range(len(self.token_ids)))

    def line(self, place: int) -> tuple[int, ...]:
        """The places from the root's child down to `place`, itself included."""
        above = () if place == ROOT else self.line(self.parents[place])
        return above if place == ROOT else (*above, place)

    def tokens_to(self, place: int) -> tuple[int, ...]:
        """The token ids that lead from the prompt to `place`, its own included."""
        return tuple(self.token_ids[node] for node in self.line(place))


def first_tokens_differ(sequences: Sequence[Sequence[int]]) -> bool:
    """Whether the first tokens alone tell the sequences apart."""
    return len({sequence[0] for sequence in sequences}) == len(sequences)


def make_trie(sequences: Sequence[tuple[int, ...]]) -> Trie:
    """The trie of token sequences, none of which begins with another.

    The order of its nodes and rows is that of the token ids, so that it does not depend on the
    order of the labels.
    """
    children: dict[tuple[int, ...], set[int]] = {(): set()}
    for sequence in sequences:
        for end in range(len(sequence)):
            children.setdefault(sequence[:end], set()).add(sequence[end])
    parts = sorted(node for node, below in children.items() if len(below) > 1)
    inner = sorted({node[:end] for node in parts for end in range(1, len(node) + 1)})
    places = {(): ROOT, **{node: place for place, node in enumerate(inner)}}
    heads = [(), *(node for node in parts if node)]
    rows = [tuple(sorted(children[node])) if len(children[node]) > 1 else () for node in heads]
    order = [(*node, token) for node, below in zip(heads, rows, strict=True) for token in below]
    row_of = {step: row for row, step in enumerate(order)}
    return Trie(
        token_ids=tuple(node[-1] for node in inner),
        parents=tuple(places[node[:-1]] for node in inner),
        branches=tuple(places[node] for node in heads),
        rows=tuple(rows),
        paths=tuple(
            tuple(row_of[s[:end]] for end in range(1, len(s) + 1) if s[:end] in row_of)
            for s in sequences
        ),
    )
