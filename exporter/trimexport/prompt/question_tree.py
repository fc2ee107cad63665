"""The tree of several questions about one text, behind it in the same forward pass.

What stands between the text and a question's answer is its suffix. The suffixes share the tokens
with which all of them begin, the trunk, which runs once with the text. The rest of each is a branch
of one tree, with the trie of its labels behind it where these are read whole. A node sees prefix,
text, trunk and its own ancestors, at the position of its depth, so that the model computes at a
question's end what it would compute for that question alone. Suffixes that begin alike share nodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from trimexport.errors import SpecError

from .label_trie import ROOT, Trie, first_tokens_differ, make_trie

Ids = tuple[int, ...]

MOST_NODES = 4096
"""Tokens of all questions together behind a text. Each is computed with every text, and has a row
and a column of the mask."""


@dataclass(frozen=True)
class Ending:
    """A question's suffix, and its labels' words: the first token of each, or the whole token
    sequences where the first do not tell them apart."""

    suffix_ids: Ids
    sequences: tuple[Ids, ...]

    @property
    def is_whole(self) -> bool:
        """Whether words are read whole."""
        return not first_tokens_differ(self.sequences)


@dataclass(frozen=True)
class QuestionTree:
    """The `trunk`, and the tree behind its last token. `answers` are, for each question, the index
    among the trie's branches of its answer's place; its other branches follow."""

    trunk: Ids
    trie: Trie
    answers: tuple[int, ...]


def make_question_tree(endings: Sequence[Ending]) -> QuestionTree:
    """The tree of questions. Its nodes are in the order of the token ids, so that the order of the
    questions makes no difference to them; branches, rows and paths are question by question.

    Raises:
        SpecError: it has more than `MOST_NODES` nodes.
    """
    trunk = shared_beginning([ending.suffix_ids for ending in endings])
    rests = [ending.suffix_ids[len(trunk) :] for ending in endings]
    tries = [make_trie(ending.sequences) for ending in endings]
    heads = [
        [(*rest, *trie.tokens_to(place)) for place in trie.branches]
        for rest, trie in zip(rests, tries, strict=True)
    ]
    nodes = sorted(
        {branch[:end] for own in heads for branch in own for end in range(1, len(branch) + 1)}
    )
    if len(nodes) > MOST_NODES:
        raise SpecError(
            f"the questions are {len(nodes):,} tokens behind each text, and {MOST_NODES:,} is the "
            "most; ask fewer or shorter ones, or build several bundles"
        )
    places = {(): ROOT, **{node: place for place, node in enumerate(nodes)}}
    answers = tuple(itertools.accumulate([0, *map(len, heads)]))[:-1]
    return QuestionTree(
        trunk=trunk,
        trie=Trie(
            token_ids=tuple(node[-1] for node in nodes),
            parents=tuple(places[node[:-1]] for node in nodes),
            branches=tuple(places[branch] for own in heads for branch in own),
            rows=tuple(itertools.chain(*(trie.rows for trie in tries))),
            paths=tuple(_paths(tries)),
            unscaled=frozenset(
                answer
                for answer, ending in zip(answers, endings, strict=True)
                if not ending.is_whole
            ),
        ),
        answers=answers,
    )


def _paths(tries: Sequence[Trie]) -> list[tuple[int, ...]]:
    """The paths of all tries, whose rows follow one another."""
    found, before = [], 0
    for trie in tries:
        found += [tuple(before + row for row in path) for path in trie.paths]
        before += sum(map(len, trie.rows))
    return found


def shared_beginning(suffixes: Sequence[Ids]) -> Ids:
    """The tokens with which all suffixes begin."""
    alike = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*suffixes, strict=False))
    return tuple(tokens[0] for tokens in alike)
