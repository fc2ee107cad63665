"""Long texts that are hard to cut, and the comparison of what is kept with the whole."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import strategies as st
from tokenizers import Tokenizer

from trimexport_runtime.long_text import Reach, first_ids, first_part, last_ids, reach_of

WORDS = ["a b", " the film", "12 ", "of the", "a", "A", "!", "aA", "漢", "漢A", "x\n", "  \n", " "]


@st.composite
def hard_texts(draw: st.DrawFn, fragments: Sequence[str], longest: int) -> tuple[str, int]:
    """A text and a number of tokens that are far fewer than it has: few fragments over and over, in
    turn or at random, or runs of single ones."""
    tokens = draw(st.sampled_from([1, 3, 8]))
    part = first_part(tokens)
    length = draw(st.sampled_from([2 * part, 3 * part + 7, 2 * longest * part + 5]))
    some = draw(st.lists(st.sampled_from([*fragments, *WORDS]), min_size=1, max_size=6))
    rng = random.Random(draw(st.integers(0, 2**20)))
    kind = draw(st.sampled_from(["in turn", "at random", "runs"]))
    if kind == "in turn":
        text = "".join(some) * (length // len("".join(some)) + 1)
    elif kind == "at random":
        text = "".join(rng.choices(some, k=length))
    else:
        text = "".join(rng.choice(some) * rng.choice([1, 5, 300, 3000]) for _ in range(40))
    ends = draw(st.sampled_from(fragments)), draw(st.sampled_from(fragments))
    return ends[0] + text[:length] + ends[1], tokens


class CountingTokenizer:
    """A tokenizer of texts that counts the characters it is given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.reach: Reach = reach_of(tokenizer)
        self.characters = 0

    def __call__(self, text: str) -> list[int]:
        self.characters += len(text)
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def assert_kept(tokenizer: CountingTokenizer, text: str, tokens: int) -> None:
    """Both ends of a text have the ids that they have in the whole, and it is seen to be cut."""
    whole = tokenizer(text)
    first = first_ids(text, tokens, tokenizer, tokenizer.reach)
    last = last_ids(text, tokens, tokenizer, tokenizer.reach)
    assert first[:tokens] == whole[:tokens]
    assert last[-tokens:] == whole[-tokens:]
    assert (len(first) > tokens) == (len(last) > tokens) == (len(whole) > tokens)
