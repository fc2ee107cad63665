"""An engine's profiles take every batch that the runtime makes of any texts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trimexport_runtime.batching import GPU_TOKEN_BUDGET, batches
from trimexport_runtime.bundle import Profile
from trimexport_runtime.profiles import WIDTHS, most_rows, profile_index, profiles_for

LIMITS = st.integers(min_value=1, max_value=10_000)


@given(LIMITS, st.lists(st.integers(min_value=0, max_value=10_000), max_size=300))
def test_every_batch_fits(limit: int, lengths: list[int]) -> None:
    profiles = profiles_for(limit)
    cut = [min(length, limit) for length in lengths]
    for batch in batches(cut, lambda width: most_rows(profiles, width)):
        width = max(1, *(cut[index] for index in batch), 1)
        place = profile_index(profiles, len(batch), width)
        assert place is not None
        assert len(batch) > 1 or place == 0, "a text alone runs where latency is tuned"
        assert len(batch) * width <= max(GPU_TOKEN_BUDGET, width)


@given(LIMITS)
def test_one_for_latency_and_the_others_for_throughput(limit: int) -> None:
    latency, *throughput = profiles_for(limit)
    assert latency.max == (1, limit)
    assert [it.max[1] for it in throughput] == sorted({min(limit, width) for width in WIDTHS})
    for profile in throughput:
        rows, width = profile.max
        assert rows * width <= GPU_TOKEN_BUDGET < (rows + 1) * width
    for profile in (latency, *throughput):
        assert all(a <= b for a, b in zip(profile.opt, profile.max, strict=True))


def test_a_thousand_tokens() -> None:
    assert [it.max for it in profiles_for(1000)] == [(1, 1000), (256, 32), (64, 128)]


def test_what_no_profile_takes() -> None:
    profiles = (Profile(opt=(1, 4), max=(1, 8)),)
    assert profile_index(profiles, 2, 4) is None
    assert profile_index(profiles, 1, 9) is None
    assert most_rows(profiles, 9) == 1
