"""The trie of the labels' token sequences, for labels that begin alike and are scored whole.

`World politics` and `World sports` share their first token, which therefore cannot tell them apart.
A label's score is then the sum of the log-probabilities of its *branches*: at every node of the
trie where sequences part, the model's distribution over the next token is normalised over the
node's children. Greedy decoding constrained to the labels would compare the same numbers, and the
scores are the logarithms of a distribution over the labels. A node with one child adds nothing.

The trie's inner nodes are appended to the prompt in the same forward pass. Each sees the prompt,
the text and its own ancestors, at the position of its depth (tree attention, as Miao et al. 2023,
SpecInfer, use it to verify drafts). So the model computes at a node what it would compute for that
sequence alone. Leaves are not appended: the head's rows stand for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ROOT = -1
"""The place of the root. The root is the prompt's last token, not an appended node."""


@dataclass(frozen=True)
class Trie:
    """The nodes that the graph appends, and the rows of the head that score them.

    `token_ids` are the tokens of the appended nodes, parents before children; a node's place is its
    index there. `parents` are the places of their parents, `ROOT` for the prompt's end. `branches`
    are the places whose next token is read: the root, and every node where sequences part. `rows`
    are, for each branch, the tokens of its children, none if it has one child only; one after the
    other they are the rows of the trimmed head. `paths` are, for each sequence, the indices of its
    rows. `unscaled` are the indices of branches whose rows' logits are taken as they are.
    """

    token_ids: tuple[int, ...]
    parents: tuple[int, ...]
    branches: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    paths: tuple[tuple[int, ...], ...]
    unscaled: frozenset[int] = frozenset()

    @property
    def depths(self) -> tuple[int, ...]:
        """How many positions each node stands behind the prompt's last token, from 1."""
        return tuple(len(self.nodes_to(place)) for place in range(len(self.token_ids)))

    def nodes_to(self, place: int) -> tuple[int, ...]:
        """The places from the root's child down to `place`, with `place`; none for the root."""
        return () if place == ROOT else (*self.nodes_to(self.parents[place]), place)

    def tokens_to(self, place: int) -> tuple[int, ...]:
        """The token ids from the prompt's end to `place`, with its own."""
        return tuple(self.token_ids[node] for node in self.nodes_to(place))


def first_tokens_differ(sequences: Sequence[Sequence[int]]) -> bool:
    """Whether the first tokens alone tell the sequences apart."""
    return len({sequence[0] for sequence in sequences}) == len(sequences)


def make_trie(sequences: Sequence[tuple[int, ...]]) -> Trie:
    """The trie of token sequences, none of which begins with another. Its nodes and rows are in
    the order of the token ids, so that the order of the labels makes no difference."""
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
            tuple(row_of[step] for step in _steps(sequence) if step in row_of)
            for sequence in sequences
        ),
    )


def _steps(sequence: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The beginnings of a sequence, from one token to the whole."""
    return [sequence[:end] for end in range(1, len(sequence) + 1)]
