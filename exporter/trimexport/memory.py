"""Give memory back to the system while a build goes on."""

from __future__ import annotations

import ctypes
import functools
import gc
import sys

_M_MMAP_THRESHOLD = -3  # as <malloc.h> has it
_THRESHOLD_BYTES = 2**20


def release() -> None:
    """Collect what is garbage, and have the C library return what it keeps for later: after a
    large tokenizer was read that is half a gigabyte. Elsewhere than on glibc it collects only."""
    gc.collect()
    trim = _c_function("malloc_trim")
    if trim is not None:
        trim(0)


@functools.cache
def keep_large_blocks_apart() -> None:
    """Let glibc map every block from 1 MiB on by itself, for the rest of the process, so that it
    goes back to the system when it is freed.

    By default glibc raises that bound up to 32 MiB as such blocks are freed. The blocks of weights
    that stream by then come from the heap, which they leave in pieces: it grew by a gigabyte over
    the matrices of a large model.
    """
    set_option = _c_function("mallopt")
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)


def _c_function(name: str) -> ctypes._NamedFuncPointer | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
