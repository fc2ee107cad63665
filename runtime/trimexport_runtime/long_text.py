"""The first or last tokens of a long text, found without tokenising all of it.

The part that is tokenised is so chosen that its tokens are those of the whole text.

- **At a word's end.** Where an ASCII letter or digit stands before a space, and no token of the
  vocabulary holds these two side by side, no merge joins what stands on the two sides, so each side
  has the tokens that it has alone. This takes normalisers that change a character by its neighbours
  at most, and a split that ends a piece there, as those of all supported families do; that the two
  sides are apart is also tried on the words around the place.
- **In a stretch without white space**, for a text without words. Byte-pair merges have this
  property: up to the end of any of its tokens, a text has the tokens that this beginning has alone.
  Of any places in a row, as many as the longest token has characters, the whole text has the end of
  a token at one; so if the beginnings that end at all of them share their first tokens, these are
  the text's. That is a proof for the first tokens of vocabularies of whole characters. It is only a
  check where tokens end within a character of several bytes; where a split by pattern might hang on
  what follows, for which characters of each kind are tried behind the longest beginning; and for
  the last tokens, because the tokenizer may write a space before each part. White space is kept
  away from because it may belong to a line break or an added token at the far end of it.

If neither succeeds with a part of twice the size and so on, the whole text is tokenised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer, models

_WORD_END = re.compile(r"(?<=[0-9A-Za-z])(?= )")
_ACROSS = re.compile("[0-9A-Za-z][ \u2581\u0120]")  # a space as texts and vocabularies write it
_FOLLOWING = ("a", "A", "1", ".")  # a character of each kind that patterns tell apart
_PER_TOKEN = 8  # characters for each token in the part that is tried first
_NEAR = 256  # characters among which words' ends are looked for
Tokenise = Callable[[str], list[int]]


@dataclass(frozen=True)
class Reach:
    """What a vocabulary says of how far its tokens reach.

    Args:
        characters: the characters of the longest token.
        across_words: whether a token holds a word's end and the space behind it.
        merges: whether the model merges pairs.
    """

    characters: int
    across_words: bool
    merges: bool


def reach_of(tokenizer: Tokenizer) -> Reach:
    """How far the tokens of a tokenizer reach."""
    tokens = list(tokenizer.get_vocab())
    return Reach(
        characters=max(map(len, tokens)),
        across_words=any(map(_ACROSS.search, tokens)),
        merges=isinstance(tokenizer.model, models.BPE),
    )


def first_part(tokens: int) -> int:
    """The characters of the part that is tried first for so many tokens. A text of less than twice
    as many is tokenised whole."""
    return _PER_TOKEN * tokens + 2 * _NEAR


def first_ids(text: str, tokens: int, tokenise: Tokenise, reach: Reach) -> list[int]:
    """The first ids of a text: more than `tokens` of them, or all if it has no more."""
    size = first_part(tokens)
    while 2 * size <= len(text):
        ends = [] if reach.across_words else _word_ends(text, size - _NEAR, size)[-3:]
        if len(ends) == 3 and _is_apart(text, ends, tokenise):
            ids = tokenise(text[: ends[1]])
        else:
            places = _places(text, size - _NEAR, size, size, reach)
            parts = [text[:place] for place in reversed(places)]
            parts += [parts[0] + it for it in _FOLLOWING if parts]
            ids = _shared(parts, tokenise, slice(tokens + 1))
        if len(ids) > tokens:
            return ids
        size *= 2
    return tokenise(text)


def last_ids(text: str, tokens: int, tokenise: Tokenise, reach: Reach) -> list[int]:
    """The last ids of a text: more than `tokens` of them, or all if it has no more."""
    size = first_part(tokens)
    while 2 * size <= len(text):
        start = len(text) - size
        ends = [] if reach.across_words else _word_ends(text, start, start + _NEAR)[:3]
        if len(ends) == 3 and _is_apart(text, ends, tokenise):
            # Before these words the tokenizer writes what it writes before a text, so the ids of
            # the first of them may be others than in the text.
            words = tokenise(text[ends[0] : ends[1]])
            ids = tokenise(text[ends[0] :])[len(words) :]
        else:
            places = _places(text, start, start + _NEAR, size, reach)
            parts = [text[place:] for place in places]
            ids = _shared(parts, tokenise, slice(-tokens - 1, None))
        if len(ids) > tokens:
            return ids
        size *= 2
    return tokenise(text)


def _places(text: str, start: int, stop: int, size: int, reach: Reach) -> range:
    """As many places in a row as the longest token has characters, with no white space so far on
    both sides. There are none if the whole text is less work than parts of `size` at each."""
    longest = reach.characters
    if not reach.merges or 2 * longest * size > len(text):
        return range(0)
    stretch = re.compile(rf"\S{{{3 * longest}}}").search(text, start, stop + 3 * longest)
    return range(stretch.start() + longest, stretch.start() + 2 * longest) if stretch else range(0)


def _shared(parts: Sequence[str], tokenise: Tokenise, kept: slice) -> list[int]:
    """The ids that are kept of each part; none if they are not the same."""
    if not parts:
        return []
    ids = tokenise(parts[0])[kept]
    return ids if all(tokenise(part)[kept] == ids for part in parts[1:]) else []


def _word_ends(text: str, start: int, stop: int) -> list[int]:
    """The places from `start` to `stop` with a letter or digit before and a space behind."""
    return [match.start() for match in _WORD_END.finditer(text, start, stop)]


def _is_apart(text: str, ends: Sequence[int], tokenise: Tokenise) -> bool:
    """Whether the words between two of three places have the same tokens alone as with those up to
    the third."""
    begin, middle, end = ends
    alone = tokenise(text[begin:middle])
    return tokenise(text[begin:end])[: len(alone)] == alone
