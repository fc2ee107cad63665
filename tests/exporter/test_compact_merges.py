"""The merges of a bundle's tokenizer as strings, which are the same merges."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE

from trimexport.prompt.tokenizer_json import compact_merges, without_start


def definition_of(merges: list[tuple[str, str]]) -> dict[str, Any]:
    letters = sorted({letter for pair in merges for part in pair for letter in part})
    words = [*letters, *(left + right for left, right in merges)]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    found: dict[str, Any] = json.loads(Tokenizer(BPE(vocabulary, merges)).to_str())
    return found


def test_merges_are_strings_and_give_the_same_tokens() -> None:
    definition = definition_of([("a", "b"), ("ab", "c")])
    before = Tokenizer.from_str(json.dumps(definition)).encode("abcabbca").ids
    compact_merges(definition["model"])
    assert definition["model"]["merges"] == ["a b", "ab c"]
    assert Tokenizer.from_str(json.dumps(definition)).encode("abcabbca").ids == before


@pytest.mark.parametrize("pair", [("a", " "), (" ", "a"), ("#version", "a")])
def test_merges_that_a_string_cannot_say_stay_pairs(pair: tuple[str, str]) -> None:
    model = {"merges": [["a", "b"], list(pair)]}
    compact_merges(model)
    assert model["merges"] == [["a", "b"], list(pair)]


def test_the_source_keeps_its_own() -> None:
    definition = definition_of([("a", "b")])
    inside = without_start(definition)
    compact_merges(inside["model"])
    inside["model"]["vocab"] = {}
    assert definition["model"]["merges"] == [["a", "b"]]
    assert definition["model"]["vocab"]
