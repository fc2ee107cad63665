"""The server's log: a JSON object a line on standard error.

A thread writes the lines, so that a slow reader of standard error, or one that is gone, delays no
request. Lines for which there is no room are dropped, and the next line says how many.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

WAITING_LINES = 10_000


class Log:
    """Queues lines, and writes them to standard error in a thread of its own."""

    def __init__(self) -> None:
        self._lines: deque[dict[str, Any]] = deque()
        self._dropped = 0
        self._wanted = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def __call__(self, line: dict[str, Any]) -> None:
        """Queue a line, or drop it if `WAITING_LINES` are queued."""
        if len(self._lines) >= WAITING_LINES:
            self._dropped += 1
            return
        self._lines.append(line)
        self._wanted.set()

    def close(self, seconds: float = 2.0) -> None:
        """Write the queued lines, but give up after `seconds`."""
        self._closing = True
        self._wanted.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        while not self._closing or self._lines:
            self._wanted.wait()
            self._wanted.clear()
            taken = [self._lines.popleft() for _ in range(len(self._lines))]
            dropped, self._dropped = self._dropped, 0
            if dropped:
                taken.append({"dropped_lines": dropped})
            text = "".join(
                json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in taken
            )
            try:
                sys.stderr.write(text.encode(errors="backslashreplace").decode())
                sys.stderr.flush()
            except BrokenPipeError:  # nobody reads it any more
                _discard()
            except (OSError, ValueError):
                continue


def _discard() -> None:
    """Let what is written to stderr go nowhere, what it still holds too: Python would try to write
    that when it ends, and end with status 120."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())


class LogHandler(logging.Handler):
    """Writes warnings and errors that are sent to Python's `logging` into the log."""

    def __init__(self, log: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record: its level, its message, and its exception if it has one."""
        line = {"level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        self._log(line)
