"""The two standard streams: results on one, and progress on the other for people only, on a
terminal and when work takes long."""

from __future__ import annotations

import io
import sys
import time
from types import TracebackType
from typing import TextIO

QUIET_SECONDS = 2.0
_INTERVAL = 0.2
_CLEAR = "\r\x1b[K"


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person reads the stream; a standard stream that was closed is None."""
    return stream is not None and stream.isatty()


def prepare_stdout(as_json: bool) -> None:
    """JSON is UTF-8 whatever the locale; other output escapes what the locale cannot show."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        if as_json:
            sys.stdout.reconfigure(encoding="utf-8")
        else:
            sys.stdout.reconfigure(errors="backslashreplace")


class Progress:
    """A counter that appears after `QUIET_SECONDS` and is wiped off at the end.

    `total` turns it into a percentage, `rate` adds how many a second. Where standard error is not a
    terminal it does nothing.
    """

    def __init__(
        self, what: str, total: int | None = None, *, visible: bool = True, rate: bool = False
    ) -> None:
        self._what = what
        self._total = total
        self._count = self._base = 0
        self._visible = visible and is_terminal(sys.stderr)
        self._began = time.monotonic() if rate else None
        self._next = time.monotonic() + QUIET_SECONDS
        self._shown = False

    def begin_at(self, count: int) -> None:
        """Count from here: what was done before took no time now."""
        self._count = self._base = count
        if self._began is not None:
            self._began = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        """Count `steps` more."""
        self._count += steps
        if self._visible and time.monotonic() >= self._next:
            self._next = time.monotonic() + _INTERVAL
            self.show()

    def show(self) -> None:
        """Write the counter now."""
        if self._visible:
            sys.stderr.write(f"{_CLEAR}{self._what} {self._state()}")
            sys.stderr.flush()
            self._shown = True

    def _state(self) -> str:
        if self._total:
            return f"{self._count / self._total:.0%}"
        if self._count and self._began is not None:
            return (
                f"{self._count:,}, {self._count / (time.monotonic() - self._began):,.0f} a second"
            )
        return f"{self._count:,}" if self._count else "..."

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
