from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trimexport_runtime.batching import WINDOW_TEXTS, batches, pad, rows_within, windows

LENGTHS = st.lists(st.integers(min_value=0, max_value=300), max_size=60)


@given(LENGTHS, st.integers(min_value=1, max_value=400))
def test_every_row_is_in_one_batch_within_the_budget(lengths: list[int], budget: int) -> None:
    found = batches(lengths, rows_within(budget))
    assert sorted(itertools.chain(*found)) == list(range(len(lengths)))
    for batch in found:
        padded = len(batch) * max(1, *(lengths[index] for index in batch), 1)
        assert len(batch) == 1 or padded <= budget


@given(LENGTHS)
def test_batches_are_of_similar_lengths(lengths: list[int]) -> None:
    in_turn = [lengths[index] for batch in batches(lengths, rows_within(99)) for index in batch]
    assert in_turn == sorted(lengths)


@given(st.lists(st.lists(st.integers(min_value=1, max_value=9), max_size=9), min_size=1))
def test_padding_is_to_the_right_and_masked(rows: list[list[int]]) -> None:
    ids, mask = pad([np.array(row, dtype=np.int64) for row in rows])
    assert ids.dtype == mask.dtype == np.int64
    assert ids.shape == mask.shape == (len(rows), max(1, *map(len, rows), 1))
    for row, padded, seen in zip(rows, ids.tolist(), mask.tolist(), strict=True):
        rest = len(padded) - len(row)
        assert padded == row + [0] * rest
        assert seen == [1] * len(row) + [0] * rest


@given(st.lists(st.integers(min_value=0, max_value=40_000), max_size=700))
def test_windows_hold_everything_in_order(sizes: list[int]) -> None:
    found = list(windows(sizes, lambda size: size))
    assert list(itertools.chain(*found)) == sizes
    assert all(0 < len(window) <= WINDOW_TEXTS for window in found)
    assert all(sum(window[:-1]) < 65_536 for window in found)


def test_windows_of_an_endless_stream() -> None:
    assert next(windows(itertools.count(), lambda _: 1)) == list(range(WINDOW_TEXTS))
