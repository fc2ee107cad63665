"""Batches of texts: which rows run together, and how they are padded.

Rows are sorted by length before they are cut into batches, so that little is spent on padding;
the indices say where each row's answer goes in the caller's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

TOKEN_BUDGET = 1024
"""The most tokens, padding included, of one batch. CPUs gain nothing from larger ones."""

LARGE_TOKEN_BUDGET = 384
"""The same for a variant of `LARGE_BYTES` or more. In larger batches its layers' results do not fit
the processor's caches (measured: docs/benchmarks.md)."""

LARGE_BYTES = 100_000_000

SMALL_BYTES = 1 << 26
"""A variant of fewer bytes gains little from several threads: its operators are short, and threads
that wait for the next take the cores from other work (measured: docs/benchmarks.md)."""

WINDOW_TEXTS = 256
WINDOW_CHARACTERS = 65_536
"""How far a stream is read ahead: so many texts, or as many as reach so many characters."""

GPU_TOKEN_BUDGET = 8192
"""The most tokens of one batch on a GPU: 256 texts of 32 tokens."""

T = TypeVar("T")


def windows(
    items: Iterable[T],
    characters: Callable[[T], int],
    most_items: int = WINDOW_TEXTS,
    most_characters: int = WINDOW_CHARACTERS,
) -> Iterator[list[T]]:
    """Cut a stream into lists, reading no further than the list that is asked for.

    A list ends with the item that brings it to `most_items` items or to `most_characters`
    characters, as `characters` counts them, so that long texts do not pile up in memory.
    """
    window: list[T] = []
    total = 0
    for item in items:
        window.append(item)
        total += characters(item)
        if len(window) >= most_items or total >= most_characters:
            yield window
            window, total = [], 0
    if window:
        yield window


def token_budget(variant_bytes: int, on_cpu: bool = True) -> int:
    """The budget with the best throughput on a CPU, or a GPU, for a variant of so many bytes."""
    if not on_cpu:
        return GPU_TOKEN_BUDGET
    return LARGE_TOKEN_BUDGET if variant_bytes >= LARGE_BYTES else TOKEN_BUDGET


def rows_within(budget: int) -> Callable[[int], int]:
    """A function from a width to how many rows of it keep to a token budget, at least one."""
    return lambda width: max(1, budget // width)


def batches(lengths: Sequence[int], most_rows: Callable[[int], int]) -> list[list[int]]:
    """Group rows, given by their lengths in tokens, into batches of similar length.

    Args:
        most_rows: a function from a width to how many rows of it one batch may have: at least 1,
            and never more for a larger width.

    Returns:
        Lists of indices into `lengths`; each index stands in exactly one. No list has more rows
        than `most_rows` says of its longest length (at least 1).
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and len(groups[-1]) < most_rows(max(1, lengths[index])):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def pad(
    rows: Sequence[npt.NDArray[np.int64]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pad rows of token ids to the right, with token 0: every model has it, and padding is masked.

    Returns:
        `input_ids` and `attention_mask`, both int64 `[batch, sequence]`; the sequence is as long
        as the longest row and at least 1, the mask is 1 at the rows' own tokens.
    """
    width = max(1, max(len(row) for row in rows))
    input_ids = np.zeros((len(rows), width), dtype=np.int64)
    attention_mask = np.zeros((len(rows), width), dtype=np.int64)
    for place, row in enumerate(rows):
        input_ids[place, : len(row)] = row
        attention_mask[place, : len(row)] = 1
    return input_ids, attention_mask
