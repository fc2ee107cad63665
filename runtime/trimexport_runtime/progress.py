"""The two standard streams: results go to standard output, and progress to standard error.

Progress is for people: it is shown on a terminal alone, and of work that takes long.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
from types import TracebackType
from typing import Any, TextIO

QUIET_SECONDS = 2.0
_INTERVAL = 0.2  # seconds between two writes


def is_terminal(stream: TextIO | None) -> bool:
    """Whether `stream` is a terminal; None, which Python has for a closed stream, is not."""
    return stream is not None and stream.isatty()


def prepare_stdout(as_json: bool) -> None:
    """Make standard output UTF-8 for JSON; for text, let it escape what the locale cannot show."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        if as_json:
            sys.stdout.reconfigure(encoding="utf-8")
        else:
            sys.stdout.reconfigure(errors="backslashreplace")


def discard_stdout() -> None:
    """Send what standard output still holds nowhere, so that exiting does not fail again."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError:  # not a real file, as under a test runner
        sys.stdout = io.StringIO()


class Progress:
    """A line on standard error that says how far work is, and is wiped off at the end.

    It counts what advances, or shows the percentage of `total`; `rate` adds how many a second. It
    appears at the first advance after `QUIET_SECONDS`, where standard error is a terminal.
    """

    def __init__(
        self, what: str, total: int | None = None, *, visible: bool = True, rate: bool = False
    ) -> None:
        state = "{percentage:.0f}%" if total else "{n:,}"
        if rate:
            state += ", {rate_noinv:,.0f} a second"
        shown = visible and is_terminal(sys.stderr)
        self._bar = _bar(what, total, state) if shown else None

    def begin_at(self, count: int) -> None:
        """Start the count at `count` and the clock of the rate now, before the first advance."""
        if self._bar is not None:
            self._bar.n = self._bar.initial = count
            self._bar.unpause()

    def advance(self, steps: int = 1) -> None:
        """Count `steps` more."""
        if self._bar is not None:
            self._bar.update(steps)

    def show(self) -> None:
        """Write the line now and without a count, for long work that has no steps."""
        if self._bar is not None:
            self._bar.bar_format = "{desc} ..."
            self._bar.delay = 0  # or closing takes the line for one that was never written
            self._bar.refresh()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _bar(what: str, total: int | None, state: str) -> Any:
    """A tqdm bar that writes `what` and `state`, from `QUIET_SECONDS` on, and leaves no line."""
    from tqdm import tqdm  # here, so that commands without a bar do not load it

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # without a thread of its own: each advance looks at the clock

    Bar.set_lock(threading.RLock())  # no other process writes here
    # By itself tqdm writes nothing to a terminal that does not know its size.
    columns, lines = shutil.get_terminal_size()
    return Bar(
        desc=what,
        total=total,
        bar_format=f"{{desc}} {state}",
        delay=QUIET_SECONDS,
        mininterval=_INTERVAL,
        miniters=1,
        smoothing=0,  # the rate is that of the whole time
        leave=False,
        ncols=columns,
        nrows=lines,
        file=sys.stderr,
    )
