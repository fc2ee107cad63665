"""The merges of a bundle's tokenizer: fewer, and the ids of every text stay the same."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE

from trimexport.prompt.merges import needed_merges
from trimexport.prompt.tokenizer_json import without_start

LETTERS = "abcd"


def definition_of(
    merges: Sequence[tuple[str, str]], spare: Sequence[str] = (), **settings: Any
) -> dict[str, Any]:
    """A tokenizer.json with these merges, and further tokens."""
    letters = sorted({letter for pair in merges for part in pair for letter in part})
    words = [*letters, *(left + right for left, right in merges), *spare]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    found: dict[str, Any] = json.loads(
        Tokenizer(BPE(vocabulary, list(merges), **settings)).to_str()
    )
    return found


def reads(definition: dict[str, Any], merges: Sequence[Any]) -> Tokenizer:
    """The tokenizer of a definition with other merges."""
    return Tokenizer.from_str(
        json.dumps({**definition, "model": {**definition["model"], "merges": merges}})
    )


def every_split(tokens: Sequence[str]) -> list[tuple[str, str]]:
    """The merges that SentencePiece's vocabularies are given: all splits of each token into two,
    in the order of the tokens."""
    known = {*LETTERS, *tokens}
    return [
        (token[:at], token[at:])
        for token in tokens
        for at in range(1, len(token))
        if {token[:at], token[at:]} <= known
    ]


def test_merges_are_strings_and_give_the_same_tokens() -> None:
    definition = definition_of([("a", "b"), ("ab", "c")])
    merges = needed_merges(definition["model"])
    assert merges == ["a b", "ab c"]
    for text in ("abcabbca", "cab"):
        assert reads(definition, merges).encode(text).ids == (
            Tokenizer.from_str(json.dumps(definition)).encode(text).ids
        )


def test_of_the_splits_of_a_token_the_one_that_is_made_stays() -> None:
    """`a` + `bc` comes first in the list and is never made, since `ab` is made before `bc`."""
    definition = definition_of([("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")])
    assert needed_merges(definition["model"]) == ["a b", "b c", "ab c"]


def test_no_split_stays_of_a_token_that_is_never_made() -> None:
    """`abcd` cannot be made: after `bc` neither `abc` nor `bcd` nor `ab` + `cd` can be."""
    splits = [("b", "c"), ("a", "b"), ("c", "d"), ("ab", "cd"), ("a", "bcd")]
    definition = definition_of(splits, spare=["bcd"])
    assert needed_merges(definition["model"]) == ["b c", "a b", "c d"]
    assert reads(definition, splits).encode("abcd").tokens == ["a", "bc", "d"]


@given(
    tokens=st.lists(st.text(LETTERS, min_size=2, max_size=6), min_size=1, max_size=40, unique=True),
    seed=st.integers(0, 10_000),
    texts=st.lists(st.text(LETTERS, min_size=1, max_size=40), min_size=1, max_size=20),
)
@settings(max_examples=150, deadline=None)
def test_no_id_changes(tokens: list[str], seed: int, texts: list[str]) -> None:
    """In any order of the merges, of which only some can ever be made."""
    merges = every_split(tokens)
    random.Random(seed).shuffle(merges)
    definition = definition_of(merges, spare=[*LETTERS, *tokens])
    kept = needed_merges(definition["model"])
    assert len(kept) <= len(merges)
    whole, fewer = reads(definition, merges), reads(definition, kept)
    for text in (*texts, *tokens, "".join(tokens)):
        assert fewer.encode(text).ids == whole.encode(text).ids


DOUBTFUL = [("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")]


@pytest.mark.parametrize("changed", [{"dropout": 0.5}, {"end_of_word_suffix": "c"}])
def test_where_merging_goes_otherwise_all_stay(changed: dict[str, Any]) -> None:
    model = {**definition_of(DOUBTFUL)["model"], **changed}
    assert needed_merges(model) == ["a b", "b c", "a bc", "ab c"]


@pytest.mark.parametrize("part", ["<0x0A>", "<unk>"])
def test_where_tokens_for_other_characters_are_merged_all_stay(part: str) -> None:
    model = {"unk_token": "<unk>", "merges": [*DOUBTFUL, (part, "a")]}
    assert needed_merges(model) == ["a b", "b c", "a bc", "ab c", f"{part} a"]


@pytest.mark.parametrize("pair", [("a", " "), (" ", "a"), ("#version", "a")])
def test_merges_that_a_string_cannot_say_stay_pairs(pair: tuple[str, str]) -> None:
    assert needed_merges({"merges": [["a", "b"], list(pair)]}) == [["a", "b"], list(pair)]


def test_the_source_keeps_its_own() -> None:
    definition = definition_of([("a", "b")])
    inside = without_start(definition)
    inside["model"]["merges"] = needed_merges(inside["model"])
    inside["model"]["vocab"] = {}
    assert definition["model"]["merges"] == [["a", "b"]]
    assert definition["model"]["vocab"]
