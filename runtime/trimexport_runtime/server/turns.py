"""A lock that threads get in the order in which they ask for it.

The batchers of tasks on one backbone run batches in turn: two at once would share the cores, each
slower, and Python's own lock lets one thread have it again and again while others wait.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turns:
    """The lock, to be used with `with`. It is not re-entrant."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def __enter__(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
