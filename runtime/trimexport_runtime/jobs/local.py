"""Parts scored on this machine: by this process, or by several, each with a model of its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from trimexport_runtime.errors import BackendError, TrimexportRuntimeError

from .parts import Part
from .scoring import Done, Scorer, Scoring


def in_this_process(parts: Iterable[Part], scoring: Scoring) -> Iterator[Done]:
    """Score parts one after the other."""
    scorer = Scorer(scoring)
    return map(scorer.score, parts)


def in_processes(parts: Iterable[Part], scoring: Scoring, workers: int) -> Iterator[Done]:
    """Score parts in several processes. What is done comes as it ends.

    Raises:
        BackendError: a process died.
        TrimexportRuntimeError: what scoring raised in one.
    """
    left = iter(parts)
    upcoming = next(left, None)
    running: list[_Worker] = []
    try:
        while upcoming is not None and len(running) < workers:
            running.append(_start(scoring))
        busy = {it.pipe: it for it in running}  # each says at first that it is ready
        while busy:
            for ready in connection.wait(list(busy)):
                assert isinstance(ready, Connection)
                worker = busy[ready]
                found = _take(worker)
                if upcoming is None:
                    del busy[ready]
                else:
                    _give(worker, upcoming)
                    upcoming = next(left, None)
                if found is not None:
                    yield found
    finally:
        for worker in running:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


@dataclass(frozen=True)
class _Worker:
    """A process that scores the parts that come through a pipe, one at a time."""

    process: BaseProcess
    pipe: Connection


def _start(scoring: Scoring) -> _Worker:
    spawned = get_context("spawn")
    ours, its = spawned.Pipe()
    process = spawned.Process(target=_work, args=(its, scoring), daemon=True)
    with _deaf():
        process.start()
    its.close()  # so that its death ends the pipe
    return _Worker(process, ours)


@contextmanager
def _deaf() -> Iterator[None]:
    """The terminal's Ctrl-C is for this process: those that are started meanwhile ignore it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _give(worker: _Worker, part: Part) -> None:
    """Hand a part to a worker that has none."""
    try:
        worker.pipe.send(part)
    except ConnectionError:
        raise _died(worker) from None


def _take(worker: _Worker) -> Done | None:
    """What a worker did; None from one that is ready to begin."""
    try:
        found = worker.pipe.recv()
    except (EOFError, ConnectionError):
        raise _died(worker) from None
    if isinstance(found, Exception):
        raise found
    assert found is None or isinstance(found, Done)
    return found


def _died(worker: _Worker) -> BackendError:
    worker.process.join()
    return BackendError(
        f"a worker process ended with status {worker.process.exitcode}; where memory ran out, give "
        "fewer --workers; --resume goes on with what is done"
    )


def _work(pipe: Connection, scoring: Scoring) -> None:
    """What a worker does, until there is nobody to do it for."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        scorer = Scorer(scoring)
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
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
