"""A pattern for many strings that begin alike.

A plain list of thousands of strings is tried one by one at each place, and where each added token
is matched against the list of all of them, that is millions of trials whenever a tokenizer is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

_SYNTAX = set("\\^$.|?*+()[]{}")
_END = ""

# What may follow, by its first character; `_END` where a string ends.
_Tree: TypeAlias = "dict[str, _Tree]"


def literal(text: str) -> str:
    """A pattern for a text itself, for Oniguruma and for JavaScript, whose `u` flag forbids the
    needless backslashes of `re.escape`."""
    return "".join("\\" + c if c in _SYNTAX else c for c in text)


def one_of(texts: Iterable[str]) -> str:
    """A pattern that matches these texts and no other, with no capturing group; beginnings that
    several have in common stand in it once. At least one text, and none that is empty."""
    tree: _Tree = {}
    for text in texts:
        node = tree
        for character in text:
            node = node.setdefault(character, {})
        node[_END] = {}
    return _pattern(tree)


def _pattern(node: _Tree) -> str:
    """The pattern of what may follow in a node of the tree."""
    branches = [_branch(character, below) for character, below in node.items() if character != _END]
    if not branches:
        return ""
    if len(branches) > 1:
        joined = f"(?:{'|'.join(branches)})"
    else:
        joined = f"(?:{branches[0]})" if _END in node else branches[0]
    return joined + "?" * (_END in node)


def _branch(character: str, below: _Tree) -> str:
    """The pattern of a character and what may follow it."""
    run = character
    while len(below) == 1 and _END not in below:
        character, below = next(iter(below.items()))
        run += character
    return literal(run) + _pattern(below)
