"""The server's batches: who shares one, and who pays when one fails."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from trimexport_runtime import BackendError, Classifier, InputError
from trimexport_runtime.server.batcher import Answered, Batcher, Ran

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
