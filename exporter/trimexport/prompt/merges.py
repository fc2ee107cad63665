"""The merges of a BPE vocabulary: as few as its ids need, and as strings.

Vocabularies that come from SentencePiece list every split of every token: both `th` + `e` and `t` +
`he` make `the`. Of all splits of one token only one is ever taken. In a text, the pair with the
lowest rank is merged first, wherever it stands. Where a token comes about, no pair that reaches
over its ends was merged, or it would not have come about; so those inside were merged as they would
be if the token were the whole text: the lowest rank first, down to the same last two parts. Merging
the token alone finds these two, and its other splits can be left out without changing an id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from .tokenizer_json import Definition

Pair = tuple[str, str]
_OTHER_WAYS = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")


def needed_merges(model: Definition) -> list[str] | list[list[str]]:
    """The merges of a BPE model that are ever made, in their order.

    They are strings `left right`, which `tokenizers` of every version reads, faster and in half of
    the memory that pairs take. Where one has a space in a token, or would be taken for a comment,
    all are pairs.
    """
    pairs = [_pair(it) for it in model["merges"]]
    if _characters_alone_are_merged(model, pairs):
        pairs = _made(pairs)
    lines = [f"{left} {right}" for left, right in pairs]
    if any(line.count(" ") != 1 or line.startswith("#version") for line in lines):
        return [list(pair) for pair in pairs]
    return lines


def _pair(merge: str | Sequence[str]) -> Pair:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _characters_alone_are_merged(model: Definition, pairs: Sequence[Pair]) -> bool:
    """Whether every token that a merge makes is made of the characters that spell it, and pairs are
    always merged in the order of their ranks."""
    if any(model.get(key) for key in _OTHER_WAYS):
        return False
    stand_ins = {f"<0x{byte:02X}>" for byte in range(256)} | {model.get("unk_token")}
    return not any(part in stand_ins for pair in pairs for part in pair)


def _made(pairs: Sequence[Pair]) -> list[Pair]:
    """Those of `pairs` that are ever merged, or that are the only split of their token."""
    ranks = {pair: rank for rank, pair in enumerate(pairs)}
    if len(ranks) < len(pairs):
        return list(pairs)
    splits = Counter(left + right for left, right in pairs)
    last = {token: _last_pair(token, ranks) for token, count in splits.items() if count > 1}
    return [pair for pair in pairs if last.get(pair[0] + pair[1], pair) == pair]


def _last_pair(token: str, ranks: Mapping[Pair, int]) -> Pair | None:
    """The two parts that are left before a token that stands alone is whole; None if merging ends
    before that."""
    never = len(ranks)
    parts = list(token)
    found = [ranks.get(pair, never) for pair in pairwise(parts)]
    while len(parts) > 2:
        rank = min(found)
        if rank == never:
            return None
        at = found.index(rank)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        del found[at]
        for place in (at - 1, at):
            if 0 <= place < len(found):
                found[place] = ranks.get((parts[place], parts[place + 1]), never)
    return parts[0], parts[1]
