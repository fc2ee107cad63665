"""A pattern for many strings matches these and no other."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex
from tokenizers.normalizers import Replace

from trimexport.prompt.one_of import one_of

CHARACTERS = "ab<>|-.]^\n▁é"
words = st.text(CHARACTERS, min_size=1, max_size=5)


@given(texts=st.lists(words, min_size=1, max_size=12), others=st.lists(words, max_size=12))
@example(texts=["a", "ab", "abb"], others=["", "b", "abbb"])
@example(texts=["ab", "ab"], others=["a"])
@example(texts=["<a>", "<b>", "<"], others=["<a", "a>"])
@settings(max_examples=300, deadline=None)
def test_it_matches_these_and_no_other(texts: list[str], others: list[str]) -> None:
    """By Python's expressions and, through tokenizers, by Oniguruma."""
    pattern = one_of(texts)
    whole = Replace(Regex(rf"(?<![\s\S]){pattern}(?![\s\S])"), "")
    for text in (*texts, *others, *(text + other for text in texts for other in others)):
        assert (re.fullmatch(pattern, text) is not None) == (text in texts)
        assert (whole.normalize_str(text) == "") == (text in texts or not text)


def test_what_several_begin_with_stands_once() -> None:
    assert one_of(f"<unused{number}>" for number in range(3)) == "<unused(?:0>|1>|2>)"
    assert one_of(["a", "ab", "abc"]) == "a(?:b(?:c)?)?"
