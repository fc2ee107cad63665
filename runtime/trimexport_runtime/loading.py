"""A session and a tokenizer loaded at the same time, in little memory.

Both take long beside a sentence's answer, and neither needs the other. ONNX Runtime prepares a
session without Python's lock, `tokenizers` holds it until a tokenizer is read. So the tokenizer is
begun when the session's preparation begins, not before: a session that has to wait for the lock
would be prepared after the tokenizer.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any, TypeVar

Session = TypeVar("Session")
Tokenizer = TypeVar("Tokenizer")

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # what glibc's mallopt calls its settings
_APART = 1 << 18  # bytes


def load_both(
    session: Callable[[Callable[[], None]], Session], tokenizer: Callable[[], Tokenizer]
) -> tuple[Session, Tokenizer]:
    """What the two return. What one of them raises is raised when both are done, the session's
    before the tokenizer's.

    Args:
        session: is given what to call when it is about to go on without Python's lock, and need
            not call it.
    """
    begun = Event()

    def wait_and_load() -> Tokenizer:
        begun.wait()
        return tokenizer()

    with _large_blocks_apart() as trim, ThreadPoolExecutor(1) as pool:
        other = pool.submit(wait_and_load)
        other.add_done_callback(lambda _: trim())
        try:
            first = session(begun.set)
        finally:
            begun.set()
        return first, other.result()


@contextmanager
def _large_blocks_apart() -> Iterator[Callable[[], object]]:
    """Within it, glibc gives large blocks back to the system as soon as they are free; what it
    yields gives back what else is free.

    By itself glibc keeps blocks for later that are as large as the largest that was ever freed, and
    between those that stay, the weights' copies of a load remain as holes. Afterwards it keeps what
    it would keep once it had freed a block of 32 MiB.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        yield lambda: None
        return
    libc.mallopt(_MMAP_THRESHOLD, _APART)
    try:
        yield lambda: libc.malloc_trim(0)
    finally:
        libc.mallopt(_MMAP_THRESHOLD, 1 << 25)
        libc.mallopt(_TRIM_THRESHOLD, 1 << 26)
        libc.malloc_trim(0)
