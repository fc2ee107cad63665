"""The server's batches: who shares one, and who pays when one fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from trimexport_runtime import BackendError, Classifier, InputError
from trimexport_runtime.server.batcher import Answered, Batcher, Ran
from trimexport_runtime.server.log import LogHandler
from trimexport_runtime.tokenize import Encoded

MakeBundle = Callable[..., Path]
TEXTS = ["b c d e f", "g h i", "j"]  # the longest first: shorter ones join it


def submitted(batcher: Batcher, classifier: Classifier, texts: list[str]) -> Future[Answered]:
    return batcher.submit([classifier.encode(text) for text in texts])


def test_requests_share_a_batch(bundle: Path) -> None:
    classifier = Classifier.load(bundle, threads=1)
    ran: list[Ran] = []
    batcher = Batcher(classifier, wait=0.5, note=ran.append)
    futures = [submitted(batcher, classifier, [text]) for text in TEXTS]
    expected = classifier.logits(TEXTS)
    for future, row in zip(futures, expected, strict=True):
        assert np.array_equal(future.result(timeout=10).logits[0], row)
    batcher.close()
    assert [it.rows for it in ran] == [3]


def test_a_request_that_fails_takes_no_other_with_it(make_bundle: MakeBundle) -> None:
    """The graph fails on a token that it has no row for, whoever shares the batch."""
    whole = Classifier.load(make_bundle("whole"), threads=1)
    bad = "the jokes"
    last = max(int(whole.encode(text).ids.max()) for text in TEXTS)
    assert last < int(whole.encode(bad).ids.max())
    classifier = Classifier.load(make_bundle("cut", rows=last + 1), threads=1)
    with pytest.raises(BackendError):
        classifier.classify([bad])
    batcher = Batcher(classifier, wait=0.5)
    good = [submitted(batcher, classifier, [text, text]) for text in TEXTS]
    failing = submitted(batcher, classifier, ["j", bad])
    for future, text in zip(good, TEXTS, strict=True):
        found = future.result(timeout=10).logits
        assert np.array_equal(found, classifier.logits([text, text]))
    with pytest.raises(BackendError):
        failing.result(timeout=10)
    assert np.isfinite(submitted(batcher, classifier, ["j"]).result(timeout=10).logits).all()
    batcher.close()
    assert batcher.tokens == 0


def test_a_text_whose_logits_are_no_numbers_fails_its_own_request(
    bundle: Path, spoil: Callable[[Path, str], None]
) -> None:
    spoil(bundle, "%")
    classifier = Classifier.load(bundle, threads=1)
    ran: list[Ran] = []
    batcher = Batcher(classifier, wait=0.5, note=ran.append)
    good = [submitted(batcher, classifier, [text]) for text in TEXTS]
    failing = submitted(batcher, classifier, ["j", "b c % e f"])
    for future, text in zip(good, TEXTS, strict=True):
        np.testing.assert_allclose(
            future.result(timeout=10).logits, classifier.logits([text]), atol=1e-5
        )
    with pytest.raises(InputError, match="text 1: the variant fp32 gives it a logit that is no"):
        failing.result(timeout=10)
    batcher.close()
    assert [it.rows for it in ran] == [5]


def test_what_nobody_waits_for_is_not_run(bundle: Path) -> None:
    classifier = Classifier.load(bundle, threads=1)
    ran: list[Ran] = []
    batcher = Batcher(classifier, wait=0.5, note=ran.append)
    gone = submitted(batcher, classifier, ["a movie"] * 9)
    assert gone.cancel()
    kept = submitted(batcher, classifier, ["dull"])
    assert len(kept.result(timeout=10).predictions) == 1
    batcher.close()
    assert [it.rows for it in ran] == [1]
    with pytest.raises(RuntimeError):
        submitted(batcher, classifier, ["late"])


def test_a_hook_that_raises_costs_no_request(bundle: Path) -> None:
    def note(ran: Ran) -> None:
        raise ValueError(f"{ran.rows} rows")

    lines: list[dict[str, Any]] = []
    handler = LogHandler(lines.append)
    logging.getLogger("trimexport_runtime").addHandler(handler)
    classifier = Classifier.load(bundle, threads=1)
    batcher = Batcher(classifier, note=note)
    for _ in range(2):
        long = submitted(batcher, classifier, ["j", "a movie " * 99])  # two batches
        assert len(long.result(timeout=10).predictions) == 2
    batcher.close()
    logging.getLogger("trimexport_runtime").removeHandler(handler)
    assert [line["error"] for line in lines] == ["ValueError: 1 rows"] * 4


def test_a_batch_that_cannot_be_chosen_fails_the_request_it_was_for(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier.load(bundle, threads=1)
    batcher = Batcher(classifier)
    with monkeypatch.context() as broken:
        broken.setattr(classifier, "most_rows", {}.__getitem__)
        for _ in range(2):
            with pytest.raises(KeyError):
                submitted(batcher, classifier, ["j"]).result(timeout=10)
    assert len(submitted(batcher, classifier, ["j"]).result(timeout=10).predictions) == 1
    batcher.close()
    assert batcher.tokens == 0


@pytest.mark.parametrize("error", [MemoryError, SystemExit])
def test_whatever_the_model_raises_ends_a_request_and_not_the_thread(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def run(rows: Sequence[Encoded]) -> npt.NDArray[np.float32]:
        raise error(error.__name__)

    classifier = Classifier.load(bundle, threads=1)
    batcher = Batcher(classifier, wait=0.2)
    with monkeypatch.context() as broken:
        broken.setattr(classifier, "run", run)
        both = [submitted(batcher, classifier, ["j"]) for _ in range(2)]
        for future in both:
            with pytest.raises(Exception, match=error.__name__):  # an Exception in any case
                future.result(timeout=10)
    assert len(submitted(batcher, classifier, ["j"]).result(timeout=10).predictions) == 1
    batcher.close()


def test_answers_that_are_not_as_many_as_the_texts_are_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier.load(bundle, threads=1)
    run = classifier.run
    monkeypatch.setattr(classifier, "run", lambda rows: run(rows)[1:])
    batcher = Batcher(classifier)
    for texts in (["j"], ["j", "i"]):
        with pytest.raises(ValueError, match="argument 2 is shorter"):
            submitted(batcher, classifier, texts).result(timeout=10)
    batcher.close()


def test_a_future_that_another_settled_takes_no_other_with_it(bundle: Path) -> None:
    classifier = Classifier.load(bundle, threads=1)
    batcher = Batcher(classifier, wait=0.2)
    claimed, settled, kept = [submitted(batcher, classifier, ["j"]) for _ in range(3)]
    claimed.set_running_or_notify_cancel()
    settled.set_exception(ValueError("elsewhere"))
    assert len(kept.result(timeout=10).predictions) == 1
    assert len(claimed.result(timeout=10).predictions) == 1
    assert len(submitted(batcher, classifier, ["j"]).result(timeout=10).predictions) == 1
    batcher.close()


def test_a_loop_that_ended_before_its_answer(bundle: Path) -> None:
    classifier = Classifier.load(bundle, threads=1)
    batcher = Batcher(classifier, wait=0.2)

    async def left() -> None:
        asyncio.wrap_future(submitted(batcher, classifier, ["j"]))

    asyncio.run(left())
    kept = submitted(batcher, classifier, ["j"])
    assert len(kept.result(timeout=10).predictions) == 1
    batcher.close()
