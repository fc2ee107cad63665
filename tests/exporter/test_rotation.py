"""Rotation changes no answer by itself, turns each activation once, and spreads what is large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from test_smooth import KINDS, LABELS, logits, seen_by

import tiny
from families import make
from trimexport import BuildSpec
from trimexport.graph.compile import compile_graph
from trimexport.model.layerwise import LayerwiseModel
from trimexport.planning import plan
from trimexport.progress import Silent
from trimexport.quantize.hadamard import Turn, hadamard, turn_of, turned_rows
from trimexport.quantize.int8 import Factors
from trimexport.quantize.matrices import products
from trimexport.quantize.rotation import rotate
from trimexport.quantize.smooth import largest_weights, smooth


@pytest.fixture(scope="module", params=KINDS)
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ir.Model:
    """A kind's compiled graph. Shared: work on a clone."""
    place = tmp_path_factory.mktemp(request.param) / "model"
    wide = {} if request.param == "gpt2" else {"intermediate_size": 128}
    directory = make(request.param, place, layers=1, **wide)
    planned = plan(BuildSpec(model=str(directory), labels=LABELS, prompt=tiny.PROMPT))
    return compile_graph(planned, LayerwiseModel(planned.checkpoint), Silent())


def test_the_same_function(graph: ir.Model) -> None:
    """Turned activations on turned weights, smoothed before or not, leave the logits as they are;
    and they are turned, or there would be nothing to see."""
    plain = logits(graph, {})
    spread = plain.std(axis=0).mean()
    rotated = graph.clone()
    factors = rotate(rotated, {})
    assert factors.keys() == {product.name for product in products(graph)}
    assert np.abs(logits(rotated, factors) - plain).max() < 1e-4 * spread
    assert np.abs(logits(rotated, {}) - plain).max() > 0.1 * spread
    both = graph.clone()
    factors = rotate(both, smooth(both, seen_by(graph), largest_weights(both)))
    assert np.abs(logits(both, factors) - plain).max() < 1e-4 * spread


def test_what_several_products_read_is_turned_once(graph: ir.Model) -> None:
    rotated = graph.clone()
    read = {product.source for product in products(rotated)}
    rotate(rotated, {})
    turned = [node for node in rotated.graph if _reads_hadamard(node)]
    assert len(turned) == len(read)
    assert len({node.inputs[0] for node in turned}) == len(turned)


def _reads_hadamard(node: ir.Node) -> bool:
    second = node.inputs[1] if len(node.inputs) > 1 else None
    return second is not None and (second.name or "").startswith("hadamard")


@pytest.mark.parametrize("turn", [Turn(64), Turn(32, 2), Turn(2, 32), None])
def test_factors_undo_what_they_ask_of_the_weights(turn: Turn | None) -> None:
    """An activation that a product reads, on the weight as it is quantised, is the product."""
    generator = torch.Generator().manual_seed(0)
    weight, activation = (torch.randn(5, 192, generator=generator) for _ in range(2))
    factors = Factors(inputs=torch.rand(192, generator=generator) + 0.5, turn=turn)
    found = factors.undo(activation) @ factors.apply(weight, 0).T
    assert torch.allclose(found, activation @ weight.T, atol=1e-4)


def test_a_large_channel_becomes_an_eighth_of_itself() -> None:
    """In every channel of its block, and in none of the others."""
    row = torch.zeros(1, 128)
    row[0, 70] = 100
    assert turned_rows(row, Turn(64)).abs().tolist() == [[0.0] * 64 + [12.5] * 64]


def test_a_large_channel_is_spread_over_several_blocks() -> None:
    """Over four of 16, and none of the four that follow."""
    row = torch.zeros(1, 128)
    row[0, 50] = 80
    assert turned_rows(row, Turn(16, 4)).abs().tolist() == [[10.0] * 64 + [0.0] * 64]


@pytest.mark.parametrize("width", [1, 2, 8, 64])
def test_a_hadamard_matrix_is_its_own_inverse(width: int) -> None:
    matrix = hadamard(width)
    assert torch.allclose(matrix @ matrix, torch.eye(width), atol=1e-6)
    assert torch.allclose(matrix.abs(), torch.tensor(width**-0.5))


def test_turns() -> None:
    """Of Gemma's channels, one of SmolLM2's, and such that powers of two hardly divide, or do not;
    within blocks and across them."""
    channels = (2048, 16_384, 640, 576, 1536, 72, 6, 75)
    assert [turn_of(it).width for it in channels] == [64, 64, 64, 64, 64, 8, 2, 1]
    assert [turn_of(it).blocks for it in channels] == [1] * 8
    assert [turn_of(it, across=True).blocks for it in channels] == [32, 64, 2, 1, 8, 1, 1, 1]


def test_what_is_turned_across_blocks(graph: ir.Model) -> None:
    """What the MLP's second projection reads, and that alone."""
    turns = {name: each.turn for name, each in rotate(graph.clone(), {}).items()}
    across = {name for name, turn in turns.items() if turn is not None and turn.blocks > 1}
    assert across == {name for name in turns if "down_proj" in name or "mlp.c_proj" in name}
    assert len(across) == 1


def test_an_odd_number_of_channels_is_left_as_it_is(tmp_path: Path) -> None:
    odd = make("gemma", tmp_path / "model", layers=1, intermediate_size=75)
    planned = plan(BuildSpec(model=str(odd), labels=LABELS, prompt=tiny.PROMPT))
    graph = compile_graph(planned, LayerwiseModel(planned.checkpoint), Silent())
    factors = rotate(graph, {})
    assert not any("down_proj" in name for name in factors)
    assert any("up_proj" in name for name in factors)
