"""The normalisers that write white space before a text, and nowhere else in it.

If the text tokenizer keeps no added token, a `Prepend` normaliser does it. If it keeps some,
normalisers run on each piece between added tokens, and `Prepend` would write before each piece. So
the added tokens are marked `normalized`: they are then matched after the normalisers, which see the
whole text. A token's own content is normalised too, so a string that is a single added token loses
the white space again.

Before it normalises, a tokenizer finds the added tokens and takes the white space beside them;
between them it writes a dummy prefix. If other normalisers could interfere with that, patterns do
it instead. They put a private-use character behind each added token that they find, so that no
other place matches, whatever is done to the rest of the text.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimexport.errors import UnsupportedError

from .one_of import literal, one_of
from .tokenizer_json import Definition, DummyPrefix, dummy_prefix, parts

_START = r"(?<![\s\S])"
_END = r"(?![\s\S])"
_MARKS = 0x100000  # plane 16 is for private use


def lead_normalizers(
    source: Definition, kept: Sequence[Definition], lead: str, is_dummy: bool
) -> list[Definition]:
    """The normalisers to put before the source's own ones, without its `Prepend`.

    Args:
        kept: the text tokenizer's added tokens, whose flags are changed in place if necessary.
        lead: the white space to write.
        is_dummy: the lead is the tokenizer's own dummy prefix, which is left out where the source
            leaves it out.

    Raises:
        UnsupportedError: patterns cannot find the added tokens as the source finds them.
    """
    dummy = dummy_prefix(source)
    between = dummy if dummy and dummy.every and kept else None
    if not lead and not between:
        return []
    stages: list[Definition] = [{"type": "Prepend", "prepend": lead}] if lead else []
    spared = _spared(dummy if is_dummy else None, kept)
    if lead and spared:
        stages.append(_replace(f"{_START}{lead}(?={spared})", ""))
    if not kept:
        return stages
    raw = [token for token in kept if not (token["normalized"] and parts(source["normalizer"]))]
    if between or not _is_harmless(source, raw):
        _check(raw, kept, between)
        stages += _marks(raw, between)
    for token in kept:
        token["normalized"] = True
    return stages


def _spared(dummy: DummyPrefix | None, kept: Sequence[Definition]) -> str:
    """A pattern for the start of a text that gets no lead: a single added token or, for a dummy
    prefix, anything before which the source leaves it out."""
    if dummy:
        blank = [f"[{dummy.unless}]"] if dummy.unless else []
        return "|".join([*blank, *_any_of(kept)])
    return one_of(token["content"] for token in kept) + _END if kept else ""


def _is_harmless(source: Definition, raw: Sequence[Definition]) -> bool:
    """Whether the source's normalisers change neither its added tokens nor the characters beside
    them."""
    behind = parts(source["normalizer"])
    if not all(part["type"] == "Replace" and part["pattern"] == {"String": " "} for part in behind):
        return False
    touched = {" ", *(part["content"] for part in behind)}
    return not behind or not any(
        token["lstrip"] or token["rstrip"] or touched & set(token["content"]) for token in raw
    )


def _check(
    raw: Sequence[Definition], kept: Sequence[Definition], between: DummyPrefix | None
) -> None:
    """Raise UnsupportedError for added tokens that patterns would find at other places than the
    tokenizer."""
    if between and len(raw) < len(kept):
        raw_ids = {token["id"] for token in raw}
        names = [token["content"] for token in kept if token["id"] not in raw_ids]
        why = "is matched after a space is written before each piece"
    else:
        contents = [token["content"] for token in kept]
        names = [token["content"] for token in raw if _overlaps(token["content"], contents)]
        why = "overlaps with another"
    if names:
        raise UnsupportedError(
            f"this tokenizer has an added token that is no control token ({names[0]!r}) and {why}, "
            "so white space before a text cannot be compiled; end the prompt's part before {text} "
            "in a word or sign without a space, or mark the token special in tokenizer.json"
        )


def _overlaps(content: str, others: Sequence[str]) -> bool:
    """Whether the token's end is another one's start, or the other way round, so that both may
    match the same character."""
    return any(
        content[-size:] == other[:size] or other[-size:] == content[:size]
        for other in others
        for size in range(1, min(len(content), len(other)))
    )


def _marks(raw: Sequence[Definition], between: DummyPrefix | None) -> list[Definition]:
    """The normalisers that mark the added tokens, and that write the dummy prefix behind those
    that a piece follows."""
    stages = []
    others = "|".join(_any_of(raw))
    unless = rf"|[{between.unless}]" if between and between.unless else ""
    ordered = sorted(raw, key=lambda token: -len(token["content"]))
    for number, token in enumerate(ordered):
        mark = chr(_MARKS + number)
        marked = token["content"] + mark
        pattern = _found(token) + (r"\s*" if token["rstrip"] else "")
        if between:
            blank = r"|\s" if token["rstrip"] else ""  # the token takes all white space
            last = rf"(?!{_END}{blank}{unless}|{others}|{mark})"
            stages.append(_replace(pattern + last, marked + " "))
        stages.append(_replace(f"{pattern}(?!{mark})", marked))
    for token in raw:
        token.update(lstrip=False, rstrip=False, single_word=False)
    return stages


def _any_of(tokens: Sequence[Definition]) -> list[str]:
    """Patterns of which one matches wherever the tokenizer finds one of these tokens."""
    plain = [it["content"] for it in tokens if not (it["lstrip"] or it["single_word"])]
    others = [_found(it) for it in tokens if it["lstrip"] or it["single_word"]]
    return [*([one_of(plain)] if plain else []), *others]


def _found(token: Definition) -> str:
    """A pattern for the token where the tokenizer finds it, with the white space that it takes
    before itself."""
    before = r"\s*" if token["lstrip"] else ""
    if token["single_word"]:
        return rf"{before}(?<!\w){literal(token['content'])}(?!\w)"
    return before + literal(token["content"])


def _replace(pattern: str, content: str) -> Definition:
    """The normaliser that replaces what matches a pattern."""
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}
