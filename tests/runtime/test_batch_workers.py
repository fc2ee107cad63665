"""Batches that run at once: every request is answered once, whole, and as it would be alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from trimexport_runtime import BackendError, Classifier
from trimexport_runtime.cores import threads_beside, usable_cores
from trimexport_runtime.server.batcher import Answered, Batcher
from trimexport_runtime.tokenize import Encoded

MakeBundle = Callable[..., Path]
TEXTS = ["b c d e f", "g h i j k", "b c d e g", "b c d e h"]  # of as many tokens each


def submitted(batcher: Batcher, classifier: Classifier, texts: list[str]) -> Future[Answered]:
    return batcher.submit([classifier.encode(text) for text in texts])


@pytest.fixture
def begun(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of the batches that began, the first of which ends once a second has begun too."""
    sizes: list[int] = []
    run, second = classifier.run, threading.Event()

    def waiting(rows: Sequence[Encoded]) -> npt.NDArray[np.float32]:
        sizes.append(len(rows))
        if len(sizes) > 1:
            second.set()
        if not second.wait(30):
            raise BackendError("no second batch began")
        return run(rows)

    monkeypatch.setattr(classifier, "run", waiting)
    return sizes


def test_two_requests_run_at_once(classifier: Classifier, begun: list[int]) -> None:
    batcher = Batcher(classifier, workers=2)
    futures = [submitted(batcher, classifier, [text]) for text in TEXTS[:2]]
    for future in futures:
        assert len(future.result(timeout=60).predictions) == 1
    batcher.close()
    assert begun == [1, 1]


def test_workers_share_a_request(bundle: Path, classifier: Classifier, begun: list[int]) -> None:
    """A worker leaves the other its share, and the answer comes when both are done."""
    batcher = Batcher(classifier, workers=2)
    answered = submitted(batcher, classifier, TEXTS * 2).result(timeout=60)
    batcher.close()
    assert begun[0] == 4
    assert sum(begun) == 8
    expected = Classifier.load(bundle, threads=1)
    np.testing.assert_allclose(answered.logits, expected.logits(TEXTS * 2), atol=1e-5)
    assert [it.label for it in answered.predictions] == [
        it.label for it in expected.classify(TEXTS * 2)
    ]


def test_a_request_that_fails_on_one_worker_is_done_on_all(make_bundle: MakeBundle) -> None:
    """The graph fails on a token that it has no row for, in one batch of the request's several."""
    whole = Classifier.load(make_bundle("whole"), threads=1)
    last = max(int(whole.encode(text).ids.max()) for text in TEXTS)
    classifier = Classifier.load(make_bundle("cut", rows=last + 1), threads=1)
    batcher = Batcher(classifier, workers=2)
    for _ in range(20):
        failing = submitted(batcher, classifier, [*TEXTS, "the jokes", *TEXTS])
        good = submitted(batcher, classifier, TEXTS)
        with pytest.raises(BackendError):
            failing.result(timeout=60)
        found = good.result(timeout=60).logits
        np.testing.assert_allclose(found, classifier.logits(TEXTS), atol=1e-5)
    batcher.close()
    assert batcher.tokens == 0


def test_many_requests_at_once(classifier: Classifier) -> None:
    """Of one to nine texts from four threads; every third is cancelled, done or not."""
    batcher = Batcher(classifier, workers=3)
    texts = [text[:size] for text in TEXTS for size in (1, 3, 5, 9)]

    def ask(thread: int) -> list[tuple[list[str], Future[Answered]]]:
        asked = []
        for number in range(60):
            own = [texts[(thread + number * place) % len(texts)] for place in range(number % 9 + 1)]
            asked.append((own, submitted(batcher, classifier, own)))
            if number % 3 == 0:
                asked[-1][1].cancel()
        return asked

    with ThreadPoolExecutor(4) as pool:
        asked = [pair for pairs in pool.map(ask, range(4)) for pair in pairs]
    batcher.close()
    assert batcher.tokens == 0
    kept = [(own, future) for own, future in asked if not future.cancelled()]
    assert len(kept) >= 4 * 40
    for own, future in kept:
        found = future.result(timeout=0).logits
        np.testing.assert_allclose(found, classifier.logits(own), atol=1e-5)


def test_all_workers_end(classifier: Classifier) -> None:
    before = set(threading.enumerate())
    batcher = Batcher(classifier, workers=3)
    assert len(set(threading.enumerate()) - before) == 3
    answer = submitted(batcher, classifier, TEXTS)
    batcher.close()
    assert len(answer.result(timeout=0).predictions) == len(TEXTS)
    assert set(threading.enumerate()) <= before


def test_threads_of_batches_that_run_at_once() -> None:
    """Together with the threads that call it, a session has as many as there are cores."""
    cores = usable_cores()
    assert threads_beside(1) == cores
    assert threads_beside(cores) == 1
    assert threads_beside(cores + 1) == 1
