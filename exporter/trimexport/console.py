"""What the command line shows while it works: lines and progress bars on standard error."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
from trimexport_runtime import TrimexportRuntimeError

from .errors import TrimexportError


class ConsoleProgress:
    """Progress on standard error: bars on a terminal, plain lines elsewhere."""

    def say(self, line: str) -> None:
        """Print a line."""
        click.echo(line, err=True)

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show `what` while the block runs; a bar, if standard error is a terminal."""
        began = time.monotonic()
        stream = click.get_text_stream("stderr")
        if stream.isatty() and total > 1:
            with click.progressbar(length=total, label=what, file=stream) as shown:
                yield lambda done: shown.update(done)
            return
        yield lambda done: None
        click.echo(f"{what}: {time.monotonic() - began:.1f} s", err=True)


class Commands(click.Group):
    """A group whose commands end in one line for every failure that is foreseen."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; termination is treated like Ctrl-C, so that it cleans up too."""
        with contextlib.suppress(ValueError):  # not the main thread, as under a test runner
            signal.signal(signal.SIGTERM, _interrupt)
        try:
            return super().invoke(ctx)
        except (TrimexportError, TrimexportRuntimeError) as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted; nothing was kept", err=True)
            ctx.exit(130)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
