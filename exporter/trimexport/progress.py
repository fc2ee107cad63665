"""How a build tells what it is doing. Silent unless the caller gives something that speaks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """What the stages call while they work."""

    def say(self, line: str) -> None:
        """Something the user should know: a choice that was made, a warning."""

    def bar(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A span of work of `total` units; the function it gives takes the units just done."""


class Silent:
    """Says nothing."""

    def say(self, line: str) -> None:
        """Ignore `line`."""

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Ignore the work done."""
        yield lambda done: None
