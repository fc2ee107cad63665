"""Same text, same answer: whatever its batch mates, its place, its padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimexport_runtime import Classifier, read_manifest
from trimexport_runtime.tokenize import TextEncoder

TOLERANCE = 1e-4
TEXT = "a gorgeous , witty , seductive movie"
VOCABULARY = 8000

Ids = npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def session(sentiment: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(sentiment / "onnx" / "model.onnx"))


@pytest.fixture(scope="module")
def ids(sentiment: Path) -> list[int]:
    return TextEncoder.load(sentiment, read_manifest(sentiment)).encode(TEXT).ids.tolist()


def run(session: ort.InferenceSession, rows: Ids, mask: Ids) -> npt.NDArray[np.float32]:
    return session.run(["logits"], {"input_ids": rows, "attention_mask": mask})[0]


def place(row: list[int], at: list[int], width: int) -> tuple[Ids, Ids]:
    """A row whose tokens stand at the given places; between them is noise that is masked out."""
    rng = np.random.default_rng(len(at) + width)
    ids = rng.integers(0, VOCABULARY, (1, width))
    mask = np.zeros((1, width), dtype=np.int64)
    ids[0, at] = row
    mask[0, at] = 1
    return ids, mask


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_padding_may_be_anywhere(
    session: ort.InferenceSession, ids: list[int], data: st.DataObject
) -> None:
    """Right, left or with holes: only the real tokens count, in their order."""
    alone = run(session, np.array([ids]), np.ones((1, len(ids)), dtype=np.int64))
    width = len(ids) + data.draw(st.integers(0, 40), label="padding")
    places = sorted(data.draw(st.permutations(range(width)), label="places")[: len(ids)])
    found = run(session, *place(ids, places, width))
    assert np.abs(found - alone).max() < TOLERANCE
    assert found.argmax() == alone.argmax()


def test_padding_left_and_right(session: ort.InferenceSession, ids: list[int]) -> None:
    alone = run(session, np.array([ids]), np.ones((1, len(ids)), dtype=np.int64))
    width = len(ids) + 30
    for start in (0, 30):
        found = run(session, *place(ids, list(range(start, start + len(ids))), width))
        assert np.abs(found - alone).max() < TOLERANCE


@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_batch_mates_do_not_matter(
    session: ort.InferenceSession, ids: list[int], data: st.DataObject
) -> None:
    """Alone, and among 64 random rows of random lengths, at any place."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    width = 64
    rows = rng.integers(0, VOCABULARY, (65, width))
    lengths = rng.integers(0, width + 1, 65)
    mask = (np.arange(width) < lengths[:, None]).astype(np.int64)
    at = data.draw(st.integers(0, 64), label="place")
    rows[at], mask[at] = 0, 0
    rows[at, : len(ids)], mask[at, : len(ids)] = ids, 1
    alone = run(session, np.array([ids]), np.ones((1, len(ids)), dtype=np.int64))
    found = run(session, rows, mask)[at]
    assert np.abs(found - alone).max() < TOLERANCE
    assert found.argmax() == alone.argmax()


def test_an_empty_row_is_the_bare_prompt(session: ort.InferenceSession, ids: list[int]) -> None:
    """A row without a token is answered like any other, alone and beside a full one."""
    alone = run(session, np.zeros((1, 1), dtype=np.int64), np.zeros((1, 1), dtype=np.int64))
    rows, mask = place(ids, list(range(len(ids))), len(ids))
    both = run(session, np.vstack([rows, rows]), np.vstack([mask, 0 * mask]))
    assert np.isfinite(alone).all()
    assert np.abs(both[1] - alone[0]).max() < TOLERANCE
    assert np.abs(both[0] - both[1]).max() > 100 * TOLERANCE


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_order_does_not_matter(sentiment: Path, seed: int) -> None:
    """The classifier gives every text its own answer, in the caller's order."""
    classifier = _classifier(sentiment)
    texts = [TEXT, "dull", "", "not bad at all " * 9, "it is " * 40, "good\nbad", "so-so"]
    order = np.random.default_rng(seed).permutation(len(texts))
    straight = classifier.logits(texts)
    shuffled = classifier.logits([texts[i] for i in order])
    assert np.abs(shuffled - straight[order]).max() < TOLERANCE


_LOADED: dict[Path, Classifier] = {}


def _classifier(bundle: Path) -> Classifier:
    if bundle not in _LOADED:
        _LOADED[bundle] = Classifier.load(bundle)
    return _LOADED[bundle]
