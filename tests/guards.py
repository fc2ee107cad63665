"""int8 with its guard against overflow on and off, whatever processor this is.

With the guard int8 is exact everywhere, so that is what is compared with a reference. Without it an
x64 processor that lacks VNNI gives other numbers, but the same ones each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest

from trimexport_runtime.cpu import GUARD, adds_exactly, instructions

GUARDS = ("on", "off")

Floats = npt.NDArray[np.float32]


@contextmanager
def forced(guard: str) -> Iterator[None]:
    """Force the guard for the sessions, and the processes, that are made here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(GUARD, guard)
        yield


def both_ways(answer: Callable[[], Floats]) -> Floats:
    """What a variant answers with the guard forced on. With the guard off it gives the same bits
    where this processor adds exactly, and elsewhere the same bits each time."""
    with forced("on"):
        guarded = answer()
    with forced("off"):
        without = answer()
        expected = guarded if adds_exactly(instructions()) else answer()
    assert np.array_equal(without, expected)
    return guarded
