"""JSON values with some of their places changed: what fuzzing reads."""

from __future__ import annotations

import copy
import os
from typing import Any

from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("TRIMEXPORT_FUZZ", "300"))
"""How many requests the server is sent of each kind; of what takes longer to try, a part of it."""

ODD_NUMBERS = (
    *(-1, 0, 1, 2, 3, -2, 7, 1000, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63)),
    *(0.0, -0.0, 0.5, 1.5, -1.5, 1e-30, 1e30, 1e308),
)  # fmt: skip
ODD_TEXTS = ("", " ", "0", "1", "-1", "1.5", "null", "true", "\n", "\ud800", "é", "a" * 300)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every list or object in a JSON value, with each of its places."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [(value, key) for key in keys] + [found for key in keys for found in places(value[key])]


def values(near: tuple[int, ...] = ()) -> st.SearchStrategy[Any]:
    """Values that are seldom right: of every type of JSON, NaN and infinities, and numbers that are
    `near` a bound."""
    leaves = (
        st.none()
        | st.booleans()
        | st.sampled_from((*near, *ODD_NUMBERS))
        | st.integers(-(2**70), 2**70)
        | st.floats()
        | st.sampled_from(ODD_TEXTS)
        | st.text(max_size=8)
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=4,
    )


@st.composite
def mutated(draw: st.DrawFn, valid: Any, new: st.SearchStrategy[Any]) -> Any:
    """`valid` with one to three of its places replaced by a `new` value, exchanged or left out."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        if not (found := places(value)):
            break
        container, key = draw(st.sampled_from(found))
        match draw(st.sampled_from(("replace", "replace", "replace", "drop", "exchange", "wrap"))):
            case "replace":
                container[key] = draw(new)
            case "drop":
                del container[key]
            case "exchange":
                other, place = draw(st.sampled_from(found))
                container[key], other[place] = map(copy.deepcopy, (other[place], container[key]))
            case "wrap":
                inside = copy.deepcopy(container[key])
                container[key] = draw(st.sampled_from(([inside], {"a": inside}, str(inside))))
    return value


def check_said(error: Exception) -> None:
    """An error says something, in a line or two."""
    said = str(error)
    assert 10 < len(said) < 2500
    assert said.count("\n") < 3
