"""Which batches a TensorRT engine takes, and which of its profiles runs one. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from .batching import GPU_TOKEN_BUDGET
from .bundle import Profile

OPT_TOKENS = 32  # a sentence, for which kernels are tuned
WIDTHS = (32, 128)  # of batches; texts that are longer run one at a time


def profiles_for(limit: int, budget: int = GPU_TOKEN_BUDGET) -> tuple[Profile, ...]:
    """One profile for latency, a text of up to `limit` tokens at a time, and for throughput one for
    each of `WIDTHS`: batches of texts up to so many tokens that fill the token budget.

    An engine reserves memory for the largest batch of a profile, so no batch of throughput exceeds
    the budget.
    """
    opt = min(OPT_TOKENS, limit)
    found = [Profile(opt=(1, opt), max=(1, limit))]
    for width in dict.fromkeys(min(width, limit) for width in WIDTHS):
        rows = max(1, budget // width)
        found.append(Profile(opt=(rows, opt), max=(rows, width)))
    return tuple(found)


def single_profile(limit: int, budget: int = GPU_TOKEN_BUDGET) -> Profile:
    """The one range of batches that ONNX Runtime's TensorRT provider is given: texts up to the
    limit, as many rows as the budget has room for at that length."""
    rows = max(1, budget // limit)
    return Profile(opt=(rows, min(OPT_TOKENS, limit)), max=(rows, limit))


def most_rows(profiles: Sequence[Profile], width: int) -> int:
    """How many rows of `width` tokens some profile takes; 1 if none does, for `fitting` to say."""
    return max((it.max[0] for it in profiles if it.max[1] >= width), default=1)


def fitting(profiles: Sequence[Profile], rows: int, width: int) -> int | None:
    """The first profile that takes a batch, by its place; None if none does."""
    for place, profile in enumerate(profiles):
        if rows <= profile.max[0] and width <= profile.max[1]:
            return place
    return None
