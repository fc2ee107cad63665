"""The interface by which long work reports its progress, and the default, which is silent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """A receiver of notes and progress from the stages."""

    def say(self, line: str) -> None:
        """Show a line that the user should read: a choice that was made, a warning."""

    def bar(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show the progress of work named `what`, of `total` units, while the context is open.
        Its value is a function that is called with the number of units just done."""


class Silent:
    """A receiver that shows nothing."""

    def say(self, line: str) -> None:
        """Ignore `line`."""

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Ignore the progress."""
        yield lambda done: None
