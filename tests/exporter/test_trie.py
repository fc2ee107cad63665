"""The trie of labels that begin alike: what is appended, and scores against their definition."""

from __future__ import annotations

import itertools
import random

import torch
from hypothesis import given
from hypothesis import strategies as st

from trimexport.graph.label_tree import LabelTree
from trimexport.prompt.label_trie import ROOT, first_tokens_differ, make_trie

Sequence = tuple[int, ...]

# go-home, go-away-now, go-away-soon, stay: 1-2, 1-3-4, 1-3-5, 6
EXAMPLE = ((1, 2), (1, 3, 4), (1, 3, 5), (6,))


def test_leaves_are_not_appended() -> None:
    trie = make_trie(EXAMPLE)
    assert trie.token_ids == (1, 3)
    assert trie.parents == (ROOT, 0)
    assert trie.depths == (1, 2)
    assert trie.branches == (ROOT, 0, 1)
    assert trie.rows == ((1, 6), (2, 3), (4, 5))
    assert trie.paths == ((0, 2), (0, 3, 4), (0, 3, 5), (1,))
    assert [trie.tokens_to(place) for place in trie.branches] == [(), (1,), (1, 3)]


def test_where_nothing_parts_nothing_is_read() -> None:
    """All labels begin alike, so the prompt's end decides nothing; nor does what follows the place
    where they part."""
    trie = make_trie([(7, 8, 1, 2, 3), (7, 8, 4)])
    assert trie.token_ids == (7, 8)
    assert trie.branches == (ROOT, 1)
    assert trie.rows == ((), (1, 4))
    assert trie.paths == ((0,), (1,))


def test_first_tokens() -> None:
    assert first_tokens_differ([(1, 2), (2, 2)])
    assert not first_tokens_differ([(1, 2), (1, 3)])


@st.composite
def label_sets(draw: st.DrawFn) -> list[Sequence]:
    """Sequences none of which begins with another."""
    token = st.integers(0, 3)
    found = draw(st.lists(st.lists(token, min_size=1, max_size=5).map(tuple), min_size=2))
    apart = [it for it in dict.fromkeys(found) if not any(_begins(other, it) for other in found)]
    return apart if len(apart) > 1 else [(0, 1), (0, 2, 3)]


def _begins(whole: Sequence, start: Sequence) -> bool:
    return len(whole) > len(start) and whole[: len(start)] == start


@given(sequences=label_sets(), seed=st.integers(0, 2**16))
def test_scores_by_their_definition(sequences: list[Sequence], seed: int) -> None:
    """The sum, over the places where a sequence could have gone on otherwise, of the logarithm of
    its token's share."""
    logits: dict[Sequence, float] = {}
    rng = random.Random(seed)
    expected = []
    for sequence in sequences:
        score = 0.0
        for end, token in enumerate(sequence):
            known = sequence[:end]
            below = sorted({it[end] for it in sequences if it[:end] == known and len(it) > end})
            values = [logits.setdefault((*known, t), rng.gauss(0, 3)) for t in below]
            if len(below) > 1:
                score += float(torch.tensor(values).log_softmax(0)[below.index(token)])
        expected.append(score)

    trie = make_trie(sequences)
    found = LabelTree(trie).scores(_head_output(trie, logits, rng))[0]
    assert torch.allclose(found, torch.tensor(expected), atol=1e-4)
    assert abs(float(found.logsumexp(0))) < 1e-4, "the scores are no distribution"


def _head_output(trie, logits, rng) -> torch.Tensor:
    """[1, branches, rows]: each branch's own rows, and noise where no other branch may look."""
    rows = list(itertools.chain(*trie.rows))
    output = torch.tensor([[rng.gauss(0, 9) for _ in rows] for _ in trie.branches])
    start = 0
    for place, (branch, own) in enumerate(zip(trie.branches, trie.rows, strict=True)):
        for row, token in enumerate(own, start):
            output[place, row] = logits[(*trie.tokens_to(branch), token)]
        start += len(own)
    return output.unsqueeze(0)


@given(sequences=label_sets(), seed=st.integers(0, 2**16))
def test_the_order_of_labels_changes_nothing(sequences: list[Sequence], seed: int) -> None:
    mixed = random.Random(seed).sample(sequences, len(sequences))
    trie, other = make_trie(sequences), make_trie(mixed)
    assert (trie.token_ids, trie.parents, trie.rows) == (
        other.token_ids,
        other.parents,
        other.rows,
    )
    assert [trie.paths[sequences.index(it)] for it in mixed] == list(other.paths)


@given(sequences=label_sets())
def test_a_node_sees_its_own_line_alone(sequences: list[Sequence]) -> None:
    trie = make_trie(sequences)
    tree, count = LabelTree(trie), len(trie.token_ids)
    last = torch.tensor([[2]])
    position = torch.arange(3 + count + 2).unsqueeze(0)  # three of a prompt, two of padding
    causal = (position.unsqueeze(1) <= position.unsqueeze(2)).unsqueeze(1)
    positions, seen = tree.among(position, causal, last)
    assert positions[0, :3].tolist() == [0, 1, 2]
    for place in range(count):
        row = seen[0, 0, 3 + place]
        assert row.nonzero().flatten().tolist() == [
            0,
            1,
            2,
            *(3 + it for it in trie.nodes_to(place)),
        ]
        assert positions[0, 3 + place] == 2 + len(trie.nodes_to(place))
