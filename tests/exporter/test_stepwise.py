"""A graph that runs part by part says what it says as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from trimexport.bundle import part_by_part
from trimexport.bundle.part_by_part import Feed, cut, run_by_parts
from trimexport_runtime import read_manifest
from trimexport_runtime.backends.onnxruntime import session_options

# The layers' matrices have 16 to 64 KiB in float32 and a quarter of it in int8; a limit of a byte
# makes a part of every node that reads a tensor and those behind it that read none.
LIMITS = {"fp32": (1, 50_000, 300_000), "int8": (1, 20_000, 100_000)}


@pytest.fixture(scope="module", params=LIMITS)
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def graph(precision: str, request: pytest.FixtureRequest) -> Path:
    name = "sentiment" if precision == "fp32" else "sentiment_int8"
    bundle: Path = request.getfixturevalue(name)
    return bundle / read_manifest(bundle).variant(precision).graph


def feeds() -> list[Feed]:
    """Batches of other shapes, one of a single row."""
    rng = np.random.default_rng(0)
    found: list[Feed] = []
    for rows, width in ((5, 30), (1, 7), (3, 1)):
        lengths = rng.integers(0, width + 1, (rows, 1))
        ids = rng.integers(3, 8000, (rows, width))
        found.append({"input_ids": ids, "attention_mask": (np.arange(width) < lengths).astype(int)})
    return found


def test_the_same_logits(graph: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the parts; in int8 to the last bit, for there is nothing in between."""
    whole = ort.InferenceSession(str(graph), session_options())
    expected = [whole.run(["logits"], feed)[0] for feed in feeds()]
    deviation = np.concatenate(expected).std(axis=0).mean()
    assert deviation > 0.1
    parts = []
    for limit in LIMITS[precision]:
        monkeypatch.setattr(part_by_part, "PART_BYTES", limit)
        done: list[int] = []
        pieces = cut(graph)
        found = run_by_parts(pieces, feeds(), done.append)
        parts.append(len(pieces.parts))
        assert sum(done) == parts[-1]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == theirs.shape
            assert ours.dtype == np.float32
            assert np.abs(ours - theirs).max() <= (0 if precision == "int8" else 1e-4 * deviation)
    assert parts[0] > 50
    assert parts[0] > parts[1] > parts[2] > 1


def test_a_small_graph_is_one_part(graph: Path) -> None:
    pieces = cut(graph)
    assert len(pieces.parts) == 1
    done: list[int] = []
    run_by_parts(pieces, feeds()[:1], done.append)
    assert done == [1]


def test_the_callers_feeds_are_left_alone(graph: Path) -> None:
    given = feeds()
    run_by_parts(cut(graph), given)
    for ours, theirs in zip(given, feeds(), strict=True):
        assert ours.keys() == theirs.keys()
