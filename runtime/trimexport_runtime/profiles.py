"""The batches that a TensorRT engine takes, as profiles, and the profile that runs a batch."""

from __future__ import annotations

from collections.abc import Sequence

from .batching import GPU_TOKEN_BUDGET
from .bundle import Profile

OPT_TOKENS = 32  # of a sentence, for which kernels are tuned
WIDTHS = (32, 128)  # tokens of a row in large batches; longer texts run one at a time


def profiles_for(limit: int, budget: int = GPU_TOKEN_BUDGET) -> tuple[Profile, ...]:
    """The profiles of an engine for texts of up to `limit` tokens.

    The first is for latency: one text at a time. The others are for throughput, one for each of
    `WIDTHS`: batches of texts of up to so many tokens that fill the token budget.

    An engine reserves memory for the largest batch of a profile, so no batch of throughput exceeds
    the budget.
    """
    opt = min(OPT_TOKENS, limit)
    profiles = [Profile(opt=(1, opt), max=(1, limit))]
    for width in dict.fromkeys(min(width, limit) for width in WIDTHS):
        rows = max(1, budget // width)
        profiles.append(Profile(opt=(rows, opt), max=(rows, width)))
    return tuple(profiles)


def single_profile(limit: int, budget: int = GPU_TOKEN_BUDGET) -> Profile:
    """The one profile for ONNX Runtime's TensorRT provider: texts of up to `limit` tokens, and as
    many of them as the budget has room for at that length."""
    rows = max(1, budget // limit)
    return Profile(opt=(rows, min(OPT_TOKENS, limit)), max=(rows, limit))


def most_rows(profiles: Sequence[Profile], width: int) -> int:
    """How many rows of `width` tokens a profile takes at most; 1 if none takes rows so long."""
    rows = (profile.max[0] for profile in profiles if profile.max[1] >= width)
    return max(rows, default=1)


def profile_index(profiles: Sequence[Profile], rows: int, width: int) -> int | None:
    """The index of the first profile for a batch of `rows` x `width` tokens; None without one."""
    for index, profile in enumerate(profiles):
        if rows <= profile.max[0] and width <= profile.max[1]:
            return index
    return None
