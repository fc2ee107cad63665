"""What quantisation takes from all texts' hidden states alike is added back before the head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import tiny
from trimexport import BuildSpec, Texts
from trimexport.bundle.correction import (
    LEAST,
    SEQUENCES,
    Expected,
    Floats,
    correct,
    expected_states,
    states_of,
)
from trimexport.bundle.onnx_file import write_onnx
from trimexport.bundle.variants import SCHEMES, quantised, see
from trimexport.bundle.written_graph import load_graph
from trimexport.bundle.written_head import CORRECTION, Head, hidden_name, put_head, read_head
from trimexport.graph.compile import compile_graph
from trimexport.model.layerwise import LayerwiseModel
from trimexport.planning import plan, whole_ids
from trimexport.progress import Silent
from trimexport.quantize.calibration import Calibration
from trimexport_runtime import read_manifest

TEXTS = Texts(tuple(f"text {n} of some words " + "and more " * (n % 4) for n in range(24)))
LABELS = {"plain": ("negative", "positive"), "tree": ("very good", "very bad", "dull")}


def head_reads(graph: Path, expected: Expected) -> Floats:
    return states_of(graph, expected, hidden_name(load_graph(graph)), {})


@pytest.fixture(scope="module", params=LABELS)
def written(
    request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Expected]:
    """An int8 graph without a correction, and what its head should read. Shared: copy it."""
    room = tmp_path_factory.mktemp(request.param)
    planned = plan(
        BuildSpec(model=str(tiny_model), labels=LABELS[request.param], prompt=tiny.PROMPT)
    )
    assert (planned.trie is None) == (request.param == "plain")
    model = LayerwiseModel(planned.checkpoint)
    scheme = SCHEMES["int8"]
    graphs = {scheme.attention: compile_graph(planned, model, Silent())}
    seen = see(graphs, Calibration(planned, model, TEXTS, room, Silent()), smoothed=True)
    graph, _ = quantised(graphs, scheme, seen)
    write_onnx(graph, room / "graph.onnx", room / "graph.data")
    return room / "graph.onnx", expected_states(seen.calibration)


def copied(file: Path) -> Path:
    """Another graph beside it, of the same data."""
    copy = file.with_name("copy.onnx")
    copy.write_bytes(file.read_bytes())
    return copy


def test_no_error_is_left_on_average(written: tuple[Path, Expected]) -> None:
    """In any of the rows that a head reads; what a text lacks beyond that stays, so it shrinks."""
    file, expected = written
    graph = copied(file)
    before = head_reads(graph, expected) - expected.hidden
    correct(graph, expected)
    after = head_reads(graph, expected) - expected.hidden
    size = np.abs(before).mean()
    assert np.abs(before.mean(0)).max() > size  # or there would be nothing to correct
    assert np.abs(after.mean(0)).max() < 1e-4 * size
    assert np.square(after).sum() < np.square(before).sum()
    assert np.allclose(after - after.mean(0), before - before.mean(0), atol=1e-4 * size)


def test_each_row_has_its_own(written: tuple[Path, Expected]) -> None:
    file, expected = written
    graph = copied(file)
    correct(graph, expected)
    tensors = {it.name: it for it in load_graph(graph).graph.initializer}
    found = onnx.numpy_helper.to_array(tensors[CORRECTION])
    assert found.shape == expected.hidden.shape[1:]
    assert len(np.unique(found, axis=0)) == len(found)


def test_a_later_head_reads_corrected_states(written: tuple[Path, Expected]) -> None:
    file, expected = written
    graph = copied(file)
    correct(graph, expected)
    model = load_graph(graph)
    old = read_head(model)
    put_head(model, Head(old.weight[:2], old.bias[:2]), rows=2)
    assert CORRECTION in {node.name for node in model.graph.node}


def test_bundles_are_corrected(sentiment: Path, sentiment_int8: Path) -> None:
    """Those that are quantised, and not one in float32."""
    for bundle, expected in ((sentiment, 0), (sentiment_int8, 1)):
        graph = load_graph(bundle / read_manifest(bundle).variants[0].graph)
        assert [node.name for node in graph.graph.node].count(CORRECTION) == expected


def test_texts_are_taken_from_all_over(tiny_model: Path, tmp_path: Path) -> None:
    """So many at most; where labels part in many places, fewer, and each text for all of them."""
    spec = BuildSpec(model=str(tiny_model), labels=LABELS["plain"], prompt=tiny.PROMPT)
    planned = plan(spec)
    texts = Texts(tuple(f"text {n}" for n in range(SEQUENCES + 20)))
    model = LayerwiseModel(planned.checkpoint)
    found = expected_states(Calibration(planned, model, texts, tmp_path, Silent()))
    assert found.hidden.shape[:2] == (SEQUENCES, 1)
    assert len(found.texts) == SEQUENCES >= LEAST
    ids = whole_ids(planned, (texts.texts[0], texts.texts[-1]))
    own = slice(len(planned.prompt.prefix_ids), -len(planned.prompt.suffix_ids))
    assert [found.texts[place].tolist() for place in (0, -1)] == [list(it[own]) for it in ids]


def test_texts_that_were_shown_are_not_read_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = BuildSpec(model=str(tiny_model), labels=LABELS["plain"], prompt=tiny.PROMPT)
    planned = plan(spec)
    model = LayerwiseModel(planned.checkpoint)
    calibration = Calibration(planned, model, Texts(("good", "a bad one", "")), tmp_path, Silent())
    alone = expected_states(calibration)
    calibration.known.clear()
    calibration.ranges({})
    monkeypatch.setattr(model, "hidden_states", None)
    assert np.allclose(expected_states(calibration).hidden, alone.hidden, atol=1e-5)
