"""Which batches a TensorRT engine takes, and which of its profiles runs one. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from .batching import GPU_TOKEN_BUDGET
from .bundle import Profile

USUAL_TOKENS = 32  # a sentence
LONG_TOKENS = 128  # texts that are longer run one at a time


def profiles_for(limit: int, budget: int = GPU_TOKEN_BUDGET) -> tuple[Profile, ...]:
    """One profile for latency, a text of up to `limit` tokens at a time, and one for throughput,
    batches of texts up to `LONG_TOKENS` that fill the token budget.

    An engine reserves memory for the largest batch of a profile, so neither is larger than it
    must be.
    """
    usual, width = min(USUAL_TOKENS, limit), min(LONG_TOKENS, limit)
    rows = max(1, budget // width)
    return (
        Profile(usual=(1, usual), largest=(1, limit)),
        Profile(usual=(rows, usual), largest=(rows, width)),
    )


def most_rows(profiles: Sequence[Profile], width: int) -> int:
    """How many rows of `width` tokens some profile takes; 1 if none does, for `fitting` to say."""
    return max((it.largest[0] for it in profiles if it.largest[1] >= width), default=1)


def fitting(profiles: Sequence[Profile], rows: int, width: int) -> int | None:
    """The first profile that takes a batch, by its place; None if none does."""
    for place, profile in enumerate(profiles):
        if rows <= profile.largest[0] and width <= profile.largest[1]:
            return place
    return None
