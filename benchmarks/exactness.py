"""How exact the peers of a comparison are: what their label logits are worth on labelled sentences,
and how far they are from those of the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trimexport.numerics import Floats, margin_error

EXACT = 0.05
"""The margin error up to which peers are equally exact: a time is compared with theirs alone."""


@dataclass(frozen=True)
class Exactness:
    """A peer's answers to labelled texts.

    Args:
        texts: how many there are.
        right: of them, how many it labels as they are labelled.
        same: how many it labels as the reference does.
        same_ids: of how many its model reads the very ids that the reference's reads.
        margin_error: of the margin between the two labels that the reference finds most probable,
            the standard deviation of the peer's error by its own; None where it hardly varies.
    """

    texts: int
    right: int
    same: int
    same_ids: int
    margin_error: float | None

    @property
    def equal(self) -> bool:
        """Whether the peer is one of those that are equally exact."""
        return self.margin_error is not None and self.margin_error <= EXACT


def exactness(results: dict[str, Any]) -> dict[str, Exactness]:
    """Every peer's, by its name; of none where the reference has not answered."""
    known = results.get("labelled") or {}
    reference = known.get("reference")
    if reference not in known.get("logits", {}):
        return {}
    expected, ids = _array(known["logits"][reference]), known["ids"]
    gold = np.array(known["gold"])

    def of(name: str) -> Exactness:
        found = _array(known["logits"][name])
        chosen = found.argmax(1)
        return Exactness(
            texts=len(gold),
            right=int((chosen == gold).sum()),
            same=int((chosen == expected.argmax(1)).sum()),
            same_ids=sum(a == b for a, b in zip(ids[name], ids[reference], strict=True)),
            margin_error=margin_error(expected, found),
        )

    return {name: of(name) for name in known["logits"]}


def _array(rows: list[list[float]]) -> Floats:
    return np.array(rows, dtype=np.float64)
