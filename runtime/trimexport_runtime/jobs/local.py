"""Parts scored on this machine: by this process, or by several, each with a model of its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from trimexport_runtime.errors import BackendError

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
    running = [_start(scoring) for _ in range(workers)]
    try:
        busy = {it.pipe: it for it in running if _give(it, next(left, None))}
        upcoming = next(left, None)
        while busy:
            for ready in connection.wait(list(busy)):
                assert isinstance(ready, Connection)
                worker = busy.pop(ready)
                found = _take(worker)
                if _give(worker, upcoming):
                    busy[ready] = worker
                    upcoming = next(left, None)
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
    process.start()
    its.close()  # so that its death ends the pipe
    return _Worker(process, ours)


def _give(worker: _Worker, part: Part | None) -> bool:
    """Hand a part, where there is one, to a worker that has none."""
    if part is None:
        return False
    try:
        worker.pipe.send(part)
    except BrokenPipeError:
        raise _died(worker) from None
    return True


def _take(worker: _Worker) -> Done:
    try:
        found = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        raise _died(worker) from None
    if isinstance(found, Exception):
        raise found
    assert isinstance(found, Done)
    return found


def _died(worker: _Worker) -> BackendError:
    worker.process.join()
    return BackendError(
        f"a worker process ended with status {worker.process.exitcode}; where memory ran out, give "
        "fewer --workers; --resume goes on with what is done"
    )


def _work(pipe: Connection, scoring: Scoring) -> None:
    """What a worker does, until there is nobody to do it for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the parent
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        scorer = Scorer(scoring)
        while True:
            pipe.send(scorer.score(pipe.recv()))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:  # raised again where the parts come from
        pipe.send(error)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
