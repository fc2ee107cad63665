"""A subject's worker process: its start, its requests and replies, its end."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from trimexport.errors import BenchError

from .subjects import Subject

WORKER = Path(__file__).with_name("worker.py")
COMMAND = [sys.executable, "-P", str(WORKER)]


class CannotRun(BenchError):
    """The subject's variant is whole, but the device cannot run it."""


class Ask(Protocol):
    """A function that sends a request to a worker and waits for the reply."""

    def __call__(self, do: str, **details: Any) -> dict[str, Any]:
        """The reply to request `do`.

        Raises:
            CannotRun: the device cannot run the variant.
            BenchError: the worker failed or ended, with its reason.
        """


@contextlib.contextmanager
def worker(subject: Subject) -> Iterator[Ask]:
    """A worker process for `subject`, which ends when the block does, even with an exception."""
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
        ) as process,
    ):

        def ask(do: str, **details: Any) -> dict[str, Any]:
            reply = _exchange(process, {"do": do, **details})
            if reply is None:
                raise BenchError(f"{subject.name} {_last_words(process, said)}")
            if "error" in reply:
                cannot = do == "load" and reply["kind"] == "BackendError"
                kind = CannotRun if cannot else BenchError
                raise kind(f"{subject.name}: {reply['error']}")
            return reply

        try:
            yield ask
        finally:
            process.kill()
            with contextlib.suppress(OSError):  # a request may still be unsent
                process.stdin.close()  # type: ignore[union-attr]
            process.wait()


def _exchange(process: subprocess.Popen[bytes], request: dict[str, Any]) -> dict[str, Any] | None:
    """The worker's reply, or None if it has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(request, allow_nan=False).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    line = process.stdout.readline()
    return json.loads(line) if line.endswith(b"\n") else None


def _last_words(process: subprocess.Popen[bytes], said: IO[bytes]) -> str:
    """The reason why a worker ended by itself, in one line."""
    status = process.wait()
    if status < 0:
        name = signal.Signals(-status).name
        if name == "SIGKILL":
            name += ", as systems do when memory runs out: free some, or choose another variant"
        return f"was ended by {name}"
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return f"ended with exit status {status}: {lines[-1] if lines else 'it said nothing'}"
