"""What the command line shows while it works, and how it ends when something goes wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from trimexport.errors import TrimexportError

INTERRUPTED = 130


class Interruption:
    """Ctrl-C and termination while a command runs: both raise KeyboardInterrupt.

    They are remembered too. A library may lose the exception on its way or turn it into one of
    its own; then the next sign of progress raises it again.
    """

    def __init__(self) -> None:
        self.received = False
        self._over = False

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Handle the signals while the block runs, unless they are ignored (as under nohup)."""
        self.received = self._over = False
        hook = sys.unraisablehook
        before: dict[int, Any] = {}
        with contextlib.suppress(ValueError):  # signals belong to the main thread
            for name in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(name) is not signal.SIG_IGN:
                    before[name] = signal.signal(name, self._receive)
        sys.unraisablehook = lambda lost: (
            None if isinstance(lost.exc_value, KeyboardInterrupt) else hook(lost)
        )
        try:
            yield
        finally:
            sys.unraisablehook = hook
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if one was received."""
        if self.received:
            raise KeyboardInterrupt

    def end(self) -> None:
        """Receive no more: the command ends as it is."""
        self._over = True

    def _receive(self, number: int, frame: object) -> None:
        if self._over:
            return
        self.received = True
        raise KeyboardInterrupt


_interruption = Interruption()


class ConsoleProgress:
    """Progress on standard error: bars on a terminal, plain lines elsewhere."""

    def say(self, line: str) -> None:
        """Print a line."""
        _interruption.check()
        click.echo(line, err=True)

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show `what` while the block runs; a bar, if standard error is a terminal."""
        _interruption.check()
        began = time.monotonic()
        if sys.stderr.isatty() and total > 1:
            with click.progressbar(length=total, label=what, file=sys.stderr) as shown:
                yield lambda done: self._tick(shown.update, done)
            return
        yield lambda done: self._tick(lambda _: None, done)
        _interruption.check()
        click.echo(f"{what}: {time.monotonic() - began:.1f} s", err=True)

    @staticmethod
    def _tick(update: Callable[[int], object], done: int) -> None:
        _interruption.check()
        update(done)


def prepare_process() -> None:
    """Settle what belongs to the whole process, as only its own program may."""
    from trimexport.memory import keep_large_blocks_apart  # here, so that help stays quick
    from trimexport_runtime.cores import usable_cores

    keep_large_blocks_apart()
    # Such blocks are new memory each time. PyTorch asks for it in huge pages, with a page fault
    # every 2 MiB and not every 4 KiB, if it is told so before it takes the first.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if (cores := usable_cores()) < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))  # PyTorch knows no control groups


class Commands(click.Group):
    """A group whose commands end in one message for every failure that is foreseen."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; termination is treated like Ctrl-C, so that it cleans up too."""
        with _interruption.watch():
            try:
                prepare_process()
                return super().invoke(ctx)
            except BaseException as error:
                if not _interruption.received and not isinstance(error, KeyboardInterrupt):
                    if _is_foreseen(error):
                        raise click.ClickException(str(error)) from error
                    if isinstance(error, OSError) and error.errno != errno.EPIPE:
                        raise click.ClickException(_refusal(error)) from error
                    raise
            # The error is gone here, with every block that it had left unfinished.
            _interruption.end()
            click.echo("Interrupted", err=True)
            ctx.exit(INTERRUPTED)


def _refusal(error: OSError) -> str:
    """What the system refused that no stage has named: with a file's name that file, without one
    standard output."""
    reason = error.strerror or error
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)} cannot be used ({reason})"
    from trimexport_runtime.progress import discard_stdout

    discard_stdout()
    return f"cannot write the results: {reason}"


def _is_foreseen(error: BaseException) -> bool:
    if isinstance(error, TrimexportError):
        return True
    from trimexport_runtime import TrimexportRuntimeError  # here, so that help stays quick

    return isinstance(error, TrimexportRuntimeError)
