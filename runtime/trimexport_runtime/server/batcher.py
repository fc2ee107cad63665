"""Texts of many requests in common batches.

One thread runs the model, or several do, each a batch of its own. Meanwhile requests wait, and the
next batch is made of those that wait: the rows of the request that was served longest ago, and as
many others of similar length as the token budget has room for. So requests take turns, a long one
does not hold up the short ones behind it, little is spent on padding, and a request that comes
alone runs at once, or after `wait` seconds in which others may join it.

One of several such threads, the workers, takes its share of the tokens that wait and leaves the
others theirs: so a large request runs on all of them, and no worker has all of a burst.

Whatever is raised while a batch is chosen or run fails the requests of that batch, and the thread
goes on: no request waits for ever.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trimexport_runtime.classifier import Classifier
from trimexport_runtime.errors import InputError
from trimexport_runtime.prediction import Prediction
from trimexport_runtime.tokenize import Encoded

Logits = npt.NDArray[np.float32]
_Row = tuple[int, Logits, Prediction]  # its place in the request, and its answer

NEAR_TOKENS = 16  # rows whose lengths differ by no more may share a batch
NEAR_SHARE = 0.5  # so may rows whose lengths differ by no more than this share of the shorter one


@dataclass(frozen=True)
class Ran:
    """A batch that ran: how many rows and padded tokens, and for how many seconds."""

    rows: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Answered:
    """The answers to a request's rows, their logits float32 `[rows, labels]`, and the seconds that
    its first row waited and that its batches ran."""

    predictions: list[Prediction]
    logits: Logits
    queued: float
    ran: float


@dataclass(eq=False)
class _Request:
    rows: Sequence[Encoded]
    arrived: float
    future: Future[Answered]
    left: set[int] = field(default_factory=set)  # places of the rows that no worker has taken
    predictions: dict[int, Prediction] = field(default_factory=dict)
    logits: Logits | None = None
    queued: float | None = None
    ran: float = 0.0

    def keep(self, made: list[_Row], seconds: float) -> bool:
        """Note the answers to rows of a batch that ran so long; whether every row has one now."""
        if self.logits is None:
            self.logits = np.empty((len(self.rows), len(made[0][1])), dtype=np.float32)
        for place, row, prediction in made:
            self.logits[place] = row
            self.predictions[place] = prediction
        self.ran += seconds
        return len(self.predictions) == len(self.rows)


class Batcher:
    """Runs rows of many requests on one classifier. `close` lets what was accepted end."""

    def __init__(
        self,
        classifier: Classifier,
        wait: float = 0.0,
        note: Callable[[Ran], None] = lambda ran: None,
        turns: contextlib.AbstractContextManager[None] | None = None,
        workers: int = 1,
    ) -> None:
        """Args:
        wait: seconds that a row may wait for others.
        note: is told of each batch.
        turns: is held while a batch is chosen and run, where batchers share a session.
        workers: how many batches may run at once.
        """
        self._turns = contextlib.nullcontext() if turns is None else turns
        self._classifier = classifier
        self._wait = wait
        self._note = note
        self._waiting: deque[_Request] = deque()  # in the order in which they were served last
        self._changed = threading.Condition()
        self._closing = False
        self._tokens = 0
        self._workers = [
            threading.Thread(target=self._work, name=f"batcher {number}", daemon=True)
            for number in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    @property
    def tokens(self) -> int:
        """How many tokens wait; a row counts for one at least."""
        return self._tokens

    def submit(self, rows: Sequence[Encoded]) -> Future[Answered]:
        """Queue the rows of a request, at least one."""
        future: Future[Answered] = Future()
        request = _Request(rows, time.monotonic(), future, left=set(range(len(rows))))
        with self._changed:
            if self._closing:
                raise RuntimeError("the batcher is closed")
            self._waiting.append(request)
            self._tokens += sum(map(_width, rows))
            self._changed.notify_all()
        return future

    def close(self) -> None:
        """Accept no more requests, and wait until those that were accepted are answered."""
        self.end()
        for worker in self._workers:
            worker.join()

    def end(self) -> None:
        """Accept no more requests. The threads end when those that were accepted are answered."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if not self._waiting:
                    return
            self._serve()

    def _serve(self) -> None:
        """Run a batch of what waits. If that fails, so do its requests, or if there is no batch yet
        the request that it was to be for."""
        batch: list[tuple[_Request, int]] = []
        try:
            with self._changed:
                self._gather()
            with self._turns:
                with self._changed:
                    batch = self._take()
                if batch:
                    self._run(batch)
        except BaseException as error:  # of any kind: it fails a request and not the thread
            with self._changed:
                failed = {request for request, _ in batch} or list(self._waiting)[:1]
            for request in failed:
                self._fail(request, error)

    def _gather(self) -> None:
        """Wait for more rows until the first request has waited long enough or a batch is full."""
        full = self._classifier.most_rows(1)
        while self._waiting and not self._closing and self._tokens < full:
            left = self._waiting[0].arrived + self._wait - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                return

    def _take(self) -> list[tuple[_Request, int]]:
        """The next batch, no longer among what waits: requests and the places of their rows."""
        for request in [waiting for waiting in self._waiting if waiting.future.cancelled()]:
            self._forget(request)
        if not self._waiting:
            return []
        batch, now = self._choose(), time.monotonic()
        for request, place in batch:
            request.left.discard(place)
            self._tokens -= _width(request.rows[place])
            if request.queued is None:
                request.queued = now - request.arrived
        served = {request for request, _ in batch}
        for request in [waiting for waiting in self._waiting if waiting in served]:
            self._waiting.remove(request)
            if request.left:
                self._waiting.append(request)
        return batch

    def _choose(self) -> list[tuple[_Request, int]]:
        """The next batch among what waits, of which there is something."""
        first = self._waiting[0]
        anchor = max(first.left, key=lambda place: _width(first.rows[place]))
        width = _width(first.rows[anchor])
        batch = [(first, anchor)]
        room = self._classifier.most_rows(width)
        share = self._tokens / len(self._workers) - width
        for request in self._waiting:
            if len(batch) == room:
                break
            for place in sorted(request.left - {anchor} if request is first else request.left):
                size = _width(request.rows[place])
                fits = len(batch) < room and size <= min(width, share)
                if fits and _near(size, width):
                    batch.append((request, place))
                    share -= size
        return batch

    def _forget(self, request: _Request) -> None:
        """Drop the rows of a request that still wait."""
        self._waiting.remove(request)
        self._tokens -= sum(_width(request.rows[place]) for place in request.left)
        request.left.clear()

    def _run(self, batch: list[tuple[_Request, int]]) -> None:
        began = time.monotonic()
        rows = [request.rows[place] for request, place in batch]
        requests = list(dict.fromkeys(request for request, _ in batch))
        try:
            logits = self._classifier.run(rows)
            predictions = self._classifier.predictions(rows, logits)
        except Exception as error:
            if len(requests) == 1:
                self._fail(requests[0], error)
            else:  # each request by itself, so that only the one that is to blame fails
                for request in requests:
                    self._run([pair for pair in batch if pair[0] is request])
            return
        seconds = time.monotonic() - began
        made: dict[_Request, list[_Row]] = {request: [] for request in requests}
        for (request, place), row, prediction in zip(batch, logits, predictions, strict=True):
            if isinstance(prediction, InputError):
                self._fail(request, InputError(f"text {place}: {prediction}"))
                made.pop(request, None)
            elif request in made:
                made[request].append((place, row, prediction))
        self._tell(Ran(len(rows), len(rows) * max(map(_width, rows)), seconds))
        for request, own in made.items():
            with self._changed:  # another worker may have rows of the same request
                is_whole = request.keep(own, seconds)
            if is_whole:
                _answer(request)

    def _tell(self, ran: Ran) -> None:
        """Call `note`. The answers are no worse if it fails, so that is only logged."""
        try:
            self._note(ran)
        except Exception:
            logging.getLogger(__name__).exception("a batch could not be noted")

    def _fail(self, request: _Request, error: BaseException) -> None:
        with self._changed:
            if request in self._waiting:
                self._forget(request)
        if not isinstance(error, Exception):  # such a one would end the loop that waits for it
            error = RuntimeError(f"{type(error).__name__}: {error}")
        with _not_settled():
            request.future.set_exception(error)


def _answer(request: _Request) -> None:
    assert request.logits is not None
    assert request.queued is not None
    made = [request.predictions[place] for place in range(len(request.rows))]
    with _not_settled():
        request.future.set_result(Answered(made, request.logits, request.queued, request.ran))


def _not_settled() -> contextlib.AbstractContextManager[None]:
    """Settle a future here: nothing happens if that was done, as by one who cancelled it."""
    return contextlib.suppress(InvalidStateError)


def _width(row: Encoded) -> int:
    return max(1, len(row.ids))


def _near(shorter: int, longer: int) -> bool:
    return longer - shorter <= max(NEAR_TOKENS, NEAR_SHARE * shorter)
