"""Give memory back to the system between the stages of a build."""

from __future__ import annotations

import ctypes
import gc
import sys


def release() -> None:
    """Collect what is garbage, and have the C library return what it keeps for later: after a
    large tokenizer was read that is half a gigabyte. Elsewhere than on glibc it collects only."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
