"""The normalisers that write white space before a text, and nowhere else in it.

Where a tokenizer keeps no added token, a `Prepend` normaliser does. Where it does, normalisers run
on each piece between added tokens, and `Prepend` would write before each. So the added tokens are
marked `normalized`, which makes them matched behind the normalisers: these then see the whole text.
As a token's own content is normalised too, the white space is taken away again from a string that
is nothing but one added token.

What the tokenizer does *before* it normalises (find the added tokens, take the white space beside
them) and *between* them (write a dummy prefix) is done by patterns where the other normalisers
could change it. These put a private-use character behind each added token that they find, so that
only those match, whatever is done to the rest of the text.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimexport.errors import UnsupportedError

from .tokenizer_json import Definition, DummyPrefix, dummy_prefix, parts

_SYNTAX = set("\\^$.|?*+()[]{}")
_START = r"(?<![\s\S])"
_END = r"(?![\s\S])"
_MARKS = 0x100000  # plane 16 is for private use


def lead_normalizers(
    source: Definition, kept: Sequence[Definition], lead: str, opens: bool
) -> list[Definition]:
    """What goes before the source's own normalisers (its `Prepend` taken out).

    Args:
        kept: the text tokenizer's added tokens; their flags are changed where need be.
        lead: the white space to write.
        opens: the lead is the tokenizer's own dummy prefix, which yields where the source's does.

    Raises:
        UnsupportedError: added tokens that cannot be found by patterns as the source finds them.
    """
    dummy = dummy_prefix(source)
    between = dummy if dummy and dummy.every and kept else None
    if not lead and not between:
        return []
    stages: list[Definition] = [{"type": "Prepend", "prepend": lead}] if lead else []
    spared = _spared(dummy if opens else None, kept)
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
    """A pattern for what gets no lead: a lone added token, or what the dummy prefix yields to."""
    if dummy:
        blank = [f"[{dummy.unless}]"] if dummy.unless else []
        return "|".join([*blank, *map(_found, kept)])
    return f"(?:{'|'.join(map(_literal, kept))}){_END}" if kept else ""


def _is_harmless(source: Definition, raw: Sequence[Definition]) -> bool:
    """Whether the source's normalisers leave its added tokens, and what is beside them, alone."""
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
    """Raise UnsupportedError for added tokens that patterns would find elsewhere."""
    if between and len(raw) < len(kept):
        raw_ids = {token["id"] for token in raw}
        names = [token["content"] for token in kept if token["id"] not in raw_ids]
        why = "is matched after a space is written before each piece"
    else:
        contents = [token["content"] for token in kept]
        names = [a for a in (token["content"] for token in raw) if _overlaps(a, contents)]
        why = "overlaps with another"
    if names:
        raise UnsupportedError(
            f"this tokenizer has an added token that is no control token ({names[0]!r}) and {why}, "
            "so white space before a text cannot be compiled; end the prompt's part before {text} "
            "in a word or sign without a space, or mark the token special in tokenizer.json"
        )


def _overlaps(content: str, others: Sequence[str]) -> bool:
    """Whether the end of one is the start of another, so that both may claim a character."""
    return any(
        content[-size:] == other[:size] or other[-size:] == content[:size]
        for other in others
        for size in range(1, min(len(content), len(other)))
    )


def _marks(raw: Sequence[Definition], between: DummyPrefix | None) -> list[Definition]:
    """Mark the added tokens, and write the dummy prefix behind those that a piece follows."""
    stages = []
    others = "|".join(map(_found, raw))
    unless = rf"|[{between.unless}]" if between and between.unless else ""
    ordered = sorted(raw, key=lambda token: -len(token["content"]))
    for number, token in enumerate(ordered):
        mark = chr(_MARKS + number)
        marked = token["content"] + mark
        pattern = _found(token) + (r"\s*" if token["rstrip"] else "")
        if between:
            blank = r"|\s" if token["rstrip"] else ""  # none is left over
            last = rf"(?!{_END}{blank}{unless}|{others}|{mark})"
            stages.append(_replace(pattern + last, marked + " "))
        stages.append(_replace(f"{pattern}(?!{mark})", marked))
    for token in raw:
        token.update(lstrip=False, rstrip=False, single_word=False)
    return stages


def _found(token: Definition) -> str:
    """A pattern for the token where the tokenizer finds it, the white space it takes before."""
    before = r"\s*" if token["lstrip"] else ""
    if token["single_word"]:
        return rf"{before}(?<!\w){_literal(token)}(?!\w)"
    return before + _literal(token)


def _literal(token: Definition) -> str:
    """Escape for regular expressions of both Oniguruma and JavaScript (whose `u` flag forbids
    needless backslashes, which `re.escape` writes)."""
    return "".join("\\" + c if c in _SYNTAX else c for c in token["content"])


def _replace(pattern: str, content: str) -> Definition:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}
