"""Work that Ctrl-C and termination do not break off."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def uninterrupted(work: Callable[[], None]) -> None:
    """Do work to its end, even if Ctrl-C or termination comes; then it takes effect.

    Requires work that can be begun again: it is, if the signal comes just before it.
    """
    before: KeyboardInterrupt | None = None
    done = False
    while not done:
        try:
            with signals_held():
                work()
                done = True
        except KeyboardInterrupt as error:  # before they were held, or when they are let go
            if done:
                raise
            before = error
    if before is not None:
        raise before


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back Ctrl-C and termination until the block has ended; then the first that came takes
    effect."""
    came: list[int] = []
    before: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():  # signals belong to it
            for name in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(name)
                if handler not in (signal.SIG_IGN, None):
                    before[name] = handler
                    signal.signal(name, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
