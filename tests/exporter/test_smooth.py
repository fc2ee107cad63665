"""Smoothing changes no answer by itself, balances what calibration texts show, and does nothing
without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx_ir.passes import common

import tiny
from families import make
from tasks import SENTIMENT
from trimexport import BuildSpec, Built, SpecError, Texts, build
from trimexport.graph.compile import compile_graph
from trimexport.model.layerwise import LayerwiseModel
from trimexport.planning import plan
from trimexport.progress import Silent
from trimexport.quantize.int8 import Factors
from trimexport.quantize.matrices import products, rows
from trimexport.quantize.smooth import balance, largest_weights, smooth

LABELS = ("positive", "negative")
# Norms of 1 + w; groups of values with a bias; one matrix for queries, keys and values, and norms
# with a bias.
KINDS = ("gemma", "qwen2", "gpt2")


@pytest.fixture(scope="module", params=KINDS)
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ir.Model:
    """A kind's compiled graph. Shared: work on a clone."""
    directory = make(request.param, tmp_path_factory.mktemp(request.param) / "model", layers=1)
    planned = plan(BuildSpec(model=str(directory), labels=LABELS, prompt=tiny.PROMPT))
    return compile_graph(planned, LayerwiseModel(planned.checkpoint), Silent())


def logits(model: ir.Model, factors: dict[str, Factors]) -> npt.NDArray[np.float32]:
    """What the graph answers once its weights were multiplied with the factors, in float32."""
    copy = model.clone()
    for product in products(copy):
        weight = torch.cat(list(rows(product.weight)))
        scaled = factors.get(product.name, Factors()).apply(weight, 0)
        value = product.node.inputs[1]
        assert value is not None
        value.const_value = ir.tensor(scaled.T.contiguous().numpy(), name=product.name)
    common.RemoveUnusedNodesPass()(copy)
    session = ort.InferenceSession(ir.to_proto(copy).SerializeToString())
    ids = np.random.default_rng(0).integers(3, 8000, (4, 12))
    return session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]


def seen_by(graph: ir.Model) -> dict[str, torch.Tensor]:
    """Ranges of every matrix's inputs, as calibration texts might give them."""
    generator = torch.Generator().manual_seed(3)
    return {
        product.parameter: torch.rand(product.weight.shape.numpy()[0], generator=generator)
        for product in products(graph)
    }


def test_the_same_function(graph: ir.Model) -> None:
    """Divided where they are made and multiplied where they are read, activations leave the
    logits as they are; and they are divided, or there would be nothing to see."""
    plain = logits(graph, {})
    assert plain.std(axis=0).mean() > 0.5
    smoothed = graph.clone()
    factors = smooth(smoothed, seen_by(graph), largest_weights(smoothed))
    assert np.abs(logits(smoothed, factors) - plain).max() < 1e-4 * plain.std(axis=0).mean()
    assert np.abs(logits(smoothed, {}) - plain).max() > 0.01 * plain.std(axis=0).mean()
    assert len(factors) >= len(products(graph)) / 2


def test_without_texts_nothing_is_smoothed(graph: ir.Model) -> None:
    """Neither gains nor weights tell which activations are large."""
    smoothed = graph.clone()
    assert smooth(smoothed, {}, largest_weights(smoothed)) == {}
    assert np.array_equal(logits(smoothed, {}), logits(graph, {}))


def test_what_texts_gave_is_balanced(graph: ir.Model) -> None:
    """The factors of what several products read go by the largest of each channel."""
    seen, largest = seen_by(graph), largest_weights(graph)
    factors = smooth(graph.clone(), seen, largest)
    mlp = ("gate_proj", "up_proj", "c_fc")
    together = [it for it in products(graph) if any(name in it.name for name in mlp)]
    sizes = torch.stack([seen[it.parameter] for it in together]).amax(0)
    weights = torch.stack([largest[it.name] for it in together]).amax(0)
    for product in together:
        found = factors[product.name].inputs
        assert found is not None
        assert torch.equal(found, balance(sizes, weights))


def test_balance() -> None:
    """sqrt(size / weight), by their geometric mean; channels without either are left alone."""
    found = balance(torch.tensor([4.0, 1.0, 0.0, 3.0]), torch.tensor([1.0, 4.0, 1.0, 0.0]))
    assert found.tolist() == pytest.approx([2.0, 0.5, 1.0, 1.0])


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A bundle of gemma-mini. Shared: do not change it."""
    spec = replace(SENTIMENT, precision=("int4", "int8"))
    texts = Texts(("a gorgeous, witty movie", "dull", "it never quite comes together"))
    return build(spec, tmp_path_factory.mktemp("calibrated") / "bundle", calibration=texts)


def test_calibration(calibrated: Built) -> None:
    """Each precision that takes the texts answers as before."""
    assert [variant.name for variant in calibrated.report.variants] == ["int4", "int8"]
    for variant in calibrated.report.variants:
        assert variant.agreement >= 0.95


def test_a_shared_table_has_its_error(calibrated: Built) -> None:
    """int8 takes int4's embedding as it lies there, and still states the worst of its weights."""
    int4, int8 = calibrated.manifest.variants
    assert int4.weight_error is not None
    assert int8.weight_error is not None
    assert int8.weight_error < int4.weight_error


@pytest.mark.parametrize("precision", [("fp32",), ("fp16", "fp32")])
def test_calibration_of_nothing(tmp_path: Path, precision: tuple[str, ...]) -> None:
    spec = BuildSpec(
        model=str(tiny.tiny_model()), labels=LABELS, prompt=tiny.PROMPT, precision=precision
    )
    message = f"calibration texts are given, and {', '.join(precision)} needs none; drop them, or"
    with pytest.raises(SpecError, match=message):
        build(spec, tmp_path / "bundle", calibration=Texts(("dull",)))
    assert list(tmp_path.iterdir()) == []
