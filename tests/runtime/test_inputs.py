"""A prompt with several fields: what is taken as its input, its ids, and which field is cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from trimexport_runtime import InputError
from trimexport_runtime.bundle import Field, TextLimit
from trimexport_runtime.errors import NoRoomError
from trimexport_runtime.inputs import characters, texts_of
from trimexport_runtime.tokenize import TextEncoder

PAIR = (Field("query"), Field("document", before=(90, 91), lead=" "))
WITH_DEFAULT = (Field("instruction", default="b a"), *PAIR)
LETTERS = st.text("abc", max_size=9)


def _encoder(fields: tuple[Field, ...], limit: TextLimit) -> TextEncoder:
    """An encoder for which each character is a token: a space 0, then a, b, c."""
    vocabulary = {character: at for at, character in enumerate(" abc")}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return TextEncoder(tokenizer, limit, allow_empty=True, fields=fields)


def _ids(fields: tuple[Field, ...], value: Any, limit: int = 99, cut: str = "end") -> list[int]:
    return _encoder(fields, TextLimit(limit, cut)).encode(value).ids.tolist()


def test_fields_are_tokenised_apart_with_the_ids_between_them() -> None:
    assert _ids(PAIR, ("ab", "c")) == [1, 2, 90, 91, 0, 3]
    assert _ids(PAIR, {"document": "c", "query": "ab"}) == [1, 2, 90, 91, 0, 3]
    assert _ids(PAIR, ["", ""]) == [90, 91], "the lead belongs to a text"
    assert _ids(WITH_DEFAULT, ("a", "c")) == [2, 0, 1, 1, 90, 91, 0, 3]
    value = {"instruction": "", "query": "a", "document": "c"}
    assert _ids(WITH_DEFAULT, value) == [1, 90, 91, 0, 3]


def test_one_field_with_a_default_beside_it_takes_a_text() -> None:
    fields = (Field("policy", default="b"), Field("text", before=(90,)))
    assert _ids(fields, "a") == [2, 90, 1]
    assert _ids(fields, {"text": "a", "policy": "c"}) == [3, 90, 1]


@given(st.tuples(LETTERS, LETTERS), st.integers(1, 20), st.sampled_from(["end", "start"]))
def test_the_field_that_is_cut_keeps_what_the_others_leave(
    pair: tuple[str, str], most: int, side: str
) -> None:
    whole = _ids(PAIR, pair)
    for cut, kept in (("query", pair[1]), ("document", pair[0])):
        encoder = _encoder(PAIR, TextLimit(most, side, cut))
        around = 2 + len(kept) + (cut == "query" and bool(kept))
        own = len(whole) - around
        if len(whole) > most and most - around < 1:
            with pytest.raises(NoRoomError, match=f"leave no room for {cut}, the field that is"):
                encoder.encode(pair)
            continue
        encoded = encoder.encode(pair)
        assert encoded.truncated == (len(whole) > most)
        assert len(encoded.ids) == min(len(whole), most)
        room = min(own, most - around)
        start = 0 if cut == "query" else around
        part = whole[start : start + own]
        part = part[:room] if side == "end" else part[own - room :]
        assert encoded.ids.tolist() == [*whole[:start], *part, *whole[start + own :]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a", r"this is one text, and the bundle's prompt takes several; it takes an object with "),
        (("a",), r"1 texts are given together; it takes an object with 'query', 'document'; or "),
        (("a", "b", "c"), r"3 texts are given together; .* or the 2 texts in this order"),
        ({"query": "a"}, r"the field 'document' is missing; it takes an object with 'query', "),
        ({"query": "a", "passage": "b"}, r"this bundle's prompt has no field 'passage'; it takes "),
        ({"query": "a", "document": 7}, r"^document: a text must be a str, this is int"),
        (("a", "\ud800"), r"^document: character 0 is the lone surrogate U\+D800"),
        (7, r"a int is no input of this bundle; it takes"),
        (b"ab", r"a bytes is no input of this bundle; it takes"),
    ],
)
def test_what_is_no_input_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _ids(PAIR, value)


def test_messages_name_fields_that_have_a_default() -> None:
    with pytest.raises(InputError, match=r"'document', and it may have 'instruction'; or the 2 "):
        _ids(WITH_DEFAULT, "a")
    fields = (Field("policy", default="b"), Field("text"))
    with pytest.raises(
        InputError, match=r"takes a text, or an object with 'text', and it may have"
    ):
        _ids(fields, {"policy": "a"})
    with pytest.raises(InputError, match=r"a list is no input of this bundle; it takes a text, or"):
        _ids(fields, ["a", "b"])


def test_a_single_field_takes_a_text_alone_or_by_name() -> None:
    only = (Field("text"),)
    assert texts_of(only, "a") == texts_of(only, {"text": "a"}) == ("a",)
    with pytest.raises(InputError, match=r"^a text must be a str, this is list; convert it first"):
        texts_of(only, ["a", "b"])
    assert texts_of((replace(only[0], name="review"),), "a") == ("a",)


def test_characters_of_an_input_are_those_of_its_texts() -> None:
    assert [characters(it) for it in ("ab", ("a", "b"), {"x": "abc", "y": 7}, 7)] == [2, 2, 3, 0]
