"""Values of a recipe that are more than one of TOML's own: lists of strings, words of labels."""

from __future__ import annotations

from collections.abc import Mapping


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def is_words(value: object) -> bool:
    """Whether it is a table of labels, with a word or a list of words for each."""
    return isinstance(value, dict) and all(is_text(it) or is_texts(it) for it in value.values())


def read_words(value: Mapping[str, str | list[str]]) -> dict[str, tuple[str, ...]]:
    """The words of each label."""
    return {
        label: (words,) if isinstance(words, str) else tuple(words)
        for label, words in value.items()
    }
