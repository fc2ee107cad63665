"""How the tokenizer.json of a task differs from that of its backbone, which a pack says in short.

The keys are those of tokenizer.json whose values are others. A task's tokenizer often lacks some of
thousands of added tokens, and has all others marked in one way. So of those, under keys that
tokenizer.json does not have, only the ids of the ones that it lacks are kept, and what all others
are marked as.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Definition = Mapping[str, Any]

ADDED, LACKING, MARKED = "added_tokens", "added_tokens_lacking", "added_tokens_marked"


def changes(backbone: Definition, task: Definition) -> dict[str, Any]:
    """What `changed` makes `task` of, given `backbone`."""
    other = {key: value for key, value in task.items() if value != backbone.get(key)}
    if ADDED in other:
        kept = {token["id"] for token in task[ADDED]}
        lacking = [token["id"] for token in backbone.get(ADDED, ()) if token["id"] not in kept]
        rest = [token for token in backbone.get(ADDED, ()) if token["id"] in kept]
        marked = _marked(rest, task[ADDED])
        if [{**token, **marked} for token in rest] == task[ADDED]:
            del other[ADDED]
            other |= {LACKING: lacking} if lacking else {}
            other |= {MARKED: marked} if marked else {}
    return other


def _marked(rest: Sequence[Definition], given: Sequence[Definition]) -> dict[str, Any]:
    """The fields that are otherwise in some of the tokens `given` than in `rest`, as the first of
    those has them."""
    pairs = zip(rest, given, strict=False)
    return next(
        (
            {key: value for key, value in new.items() if value != old.get(key)}
            for old, new in pairs
            if new != old
        ),
        {},
    )


def changed(backbone: Definition, other: Definition) -> dict[str, Any]:
    """The tokenizer.json of a task, in the order of the backbone's keys."""
    found = {**backbone, **other}
    lacking, marked = set(found.pop(LACKING, ())), found.pop(MARKED, {})
    if lacking or marked:
        kept = (token for token in found[ADDED] if token["id"] not in lacking)
        found[ADDED] = [{**token, **marked} for token in kept]
    return found
