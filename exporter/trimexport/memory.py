"""Memory that is given back to the system during a build."""

from __future__ import annotations

import ctypes
import functools
import gc
import sys

_M_MMAP_THRESHOLD = -3  # as <malloc.h> has it
_THRESHOLD_BYTES = 2**20


def release() -> None:
    """Collect garbage and, with glibc, give the memory back that the C library holds in reserve:
    half a gigabyte after a large tokenizer was read."""
    gc.collect()
    trim = _c_function("malloc_trim")
    if trim is not None:
        trim(0)


@functools.cache
def keep_large_blocks_apart() -> None:
    """Make glibc map each block of 1 MiB or more separately, for the rest of the process, so that
    it goes back to the system as soon as it is freed.

    The command line's processes do so; a library must not, for the process is another's.

    By default glibc raises that limit up to 32 MiB as such blocks are freed. Streamed blocks of
    weights then come from the heap and fragment it: it grew by a gigabyte over the matrices of a
    large model.
    """
    set_option = _c_function("mallopt")
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)


def _c_function(name: str) -> ctypes._NamedFuncPointer | None:
    """A function of the C library, or None if it has none of that name (always, but on Linux)."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
