"""How the tokenizer.json of a task differs from that of its backbone, which a pack says in short.

The keys are those of tokenizer.json whose values are others. A task's tokenizer often lacks some of
thousands of added tokens and has no others, so of those only the ids of the ones it lacks are kept,
under a key that tokenizer.json does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Definition = Mapping[str, Any]

ADDED, LACKING = "added_tokens", "added_tokens_lacking"


def changes(backbone: Definition, task: Definition) -> dict[str, Any]:
    """What `changed` makes `task` of, given `backbone`."""
    other = {key: value for key, value in task.items() if value != backbone.get(key)}
    if ADDED in other:
        kept = {token["id"] for token in task[ADDED]}
        rest = [token for token in backbone.get(ADDED, ()) if token["id"] in kept]
        if rest == task[ADDED]:
            del other[ADDED]
            lacking = (token["id"] for token in backbone[ADDED])
            other[LACKING] = [each for each in lacking if each not in kept]
    return other


def changed(backbone: Definition, other: Definition) -> dict[str, Any]:
    """The tokenizer.json of a task, in the order of the backbone's keys."""
    found = {**backbone, **other}
    lacking = set(found.pop(LACKING, ()))
    if lacking:
        found[ADDED] = [token for token in found[ADDED] if token["id"] not in lacking]
    return found
