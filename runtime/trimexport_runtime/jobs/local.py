"""Parts scored on this machine: by this process, or by several, each with a model of its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from trimexport_runtime.errors import BackendError, TrimexportRuntimeError
from trimexport_runtime.interruption import uninterrupted

from .parts import Part
from .scorer import DonePart, Scorer, ScorerOptions


def in_this_process(
    parts: Iterable[Part], options: ScorerOptions
) -> Generator[DonePart, None, None]:
    """Score parts one after the other."""
    scorer = Scorer(options)
    for part in parts:
        yield scorer.score(part)


def in_processes(
    parts: Iterable[Part], options: ScorerOptions, workers: int
) -> Generator[DonePart, None, None]:
    """Score parts in several processes, and yield each when it is done. They have ended when this
    iterator is closed, or at its end.

    Raises:
        BackendError: a process died.
        TrimexportRuntimeError: the error that scoring raised in a process.
    """
    left = iter(parts)
    upcoming = next(left, None)
    running: list[_Worker] = []
    try:
        while upcoming is not None and len(running) < workers:
            _start(options, running)
        busy = {worker.pipe: worker for worker in running}  # each first says that it is ready
        while busy:
            for ready in connection.wait(list(busy)):
                assert isinstance(ready, Connection)
                worker = busy[ready]
                done = _take(worker)
                if upcoming is None:
                    del busy[ready]
                else:
                    _give(worker, upcoming)
                    upcoming = next(left, None)
                if done is not None:
                    yield done
    finally:
        uninterrupted(lambda: _end(running))


@dataclass(frozen=True)
class _Worker:
    """A process that scores the parts that come through a pipe, one at a time."""

    process: BaseProcess
    pipe: Connection


def _start(options: ScorerOptions, running: list[_Worker]) -> None:
    """Start a worker and add it to those that are running. Ctrl-C cannot come between the two."""
    spawned = get_context("spawn")
    ours, its = spawned.Pipe()
    process = spawned.Process(target=_work, args=(its, options), daemon=True)
    with _interrupts_ignored():
        process.start()
        running.append(_Worker(process, ours))
    its.close()  # so that the pipe closes when the process ends


def _end(running: Sequence[_Worker]) -> None:
    """End workers, whatever they do."""
    for worker in running:
        worker.process.kill()
    for worker in running:
        worker.process.join()
        worker.pipe.close()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Have processes that are started in the block ignore Ctrl-C, which this process answers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _give(worker: _Worker, part: Part) -> None:
    """Send a part to a worker that has none."""
    try:
        worker.pipe.send(part)
    except ConnectionError:
        raise _died(worker) from None


def _take(worker: _Worker) -> DonePart | None:
    """Receive the part that a worker has done, or None from one that is ready for its first."""
    try:
        received = worker.pipe.recv()
    except (EOFError, ConnectionError):
        raise _died(worker) from None
    if isinstance(received, Exception):
        raise received
    assert received is None or isinstance(received, DonePart)
    return received


def _died(worker: _Worker) -> BackendError:
    worker.process.join()
    return BackendError(
        f"a worker process ended with status {worker.process.exitcode}; where memory ran out, give "
        "fewer --workers; --resume goes on with what is done"
    )


def _work(pipe: Connection, options: ScorerOptions) -> None:
    """The work of a worker process: it scores the parts that come until the pipe closes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        scorer = Scorer(options)
        pipe.send(None)
        while True:
            pipe.send(scorer.score(pipe.recv()))
    except (EOFError, ConnectionError):
        return
    except (TrimexportRuntimeError, OSError) as error:  # raised again in the parent
        pipe.send(error)
    except Exception as error:  # of a kind that the parent may not know
        pipe.send(BackendError(f"a worker process failed: {type(error).__name__}: {error}"))


def _end_with_parent() -> None:
    """End this process when its parent has ended."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
