"""Rows of JSON lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial

from .columns import Column


def json_row(
    line: str, columns: Sequence[Column], others: Sequence[str]
) -> dict[str, object] | str:
    """The object that a line is, or the reason why it cannot be read: it is none, lacks a key of
    `columns` that is needed, or has one of these keys twice.

    Args:
        others: keys that it may lack.
    """
    twice: set[str] = set()
    try:
        value = json.loads(line, object_pairs_hook=partial(_object, twice=twice))
    except (ValueError, RecursionError) as error:
        return f"the line is not JSON ({error})"
    if not isinstance(value, dict):
        example = ", ".join(f'"{column.name}": "..."' for column in columns if column.needed)
        return f"the line is not an object; write {{{example}}}"
    for column in columns:
        if column.needed and column.name not in value:
            keys = ", ".join(value) or "none"
            return f'the object has no key "{column.name}"; its keys: {keys}'
    if again := twice.intersection((*(column.name for column in columns), *others)):
        return f'the object has the key "{min(again)}" twice; leave one out'
    return value


def _object(pairs: list[tuple[str, object]], twice: set[str]) -> dict[str, object]:
    """A JSON object; the keys that it has more than once are added to `twice`."""
    value = dict(pairs)
    if len(value) < len(pairs):
        times = Counter(key for key, _ in pairs)
        twice.update(key for key, count in times.items() if count > 1)
    return value
