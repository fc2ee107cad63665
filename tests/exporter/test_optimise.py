"""The passes that rewrite layers, one at a time, on the graphs of three kinds of decoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx_ir.passes import common

from families import make
from trimexport import BuildSpec
from trimexport.graph.classifier import COPIES
from trimexport.graph.compile import compile_graph
from trimexport.graph.passes import optimise
from trimexport.graph.passes.fuse_norms import fuse_norms
from trimexport.graph.passes.fuse_rotary import fuse_rotary
from trimexport.graph.passes.last_token import last_token
from trimexport.graph.passes.scale_queries import scale_queries
from trimexport.graph.passes.split_gemms import split_gemms
from trimexport.graph.streamed_weights import StreamedWeight
from trimexport.model.layerwise import LayerwiseModel
from trimexport.planning import plan
from trimexport.progress import Silent

Floats = npt.NDArray[np.float32]

# Of the logits' standard deviation.
BOUND = 1e-4
LAYERS = 2
# Two layers of one kind each, which costs one trace. Between them: norms of 1 + w and of w, before
# and behind a block and of queries and keys; a rotary embedding of a part of the head; windows; one
# projection for queries, keys and values; and a decoder with nearly none of these.
KINDS: dict[str, dict[str, Any]] = {
    "gemma3": {"layer_types": ["sliding_attention"] * LAYERS},
    "phi3-longrope": {},
    "gpt2": {},
}
NORMS = {"gemma3": 6 * LAYERS + 1, "phi3-longrope": 2 * LAYERS + 1, "gpt2": 0}
TURNED = {"gemma3": 24, "phi3-longrope": 12}  # of the head; the second turns a part of it
PROMPT = "Review: {text}\nSentiment:"
# Projections that all tokens go through: of keys and values, or of them and the queries at once.
FOR_ALL = ("k_proj", "v_proj", "qkv_proj", "c_attn")


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def clean(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ir.Model]:
    """The kind's graph before the passes. Shared: work on a clone."""
    directory = make(kind, tmp_path_factory.mktemp(kind) / "model", layers=LAYERS, **KINDS[kind])
    spec = BuildSpec(model=str(directory), labels=("positive", "negative"), prompt=PROMPT)
    planned = plan(spec)
    with patch("trimexport.graph.passes.optimise", lambda model, **options: None):
        return compile_graph(planned, LayerwiseModel(planned.checkpoint), Silent())


def feed() -> dict[str, npt.NDArray[np.int64]]:
    """Texts of 0 to 40 tokens, padded right, left and in between."""
    rng = np.random.default_rng(0)
    mask = np.zeros((6, 40), dtype=np.int64)
    for row, length in enumerate((1, 22, 0, 40)):
        mask[row, :length] = 1
    mask[4, 25:] = 1
    mask[5] = rng.integers(0, 2, 40)
    return {"input_ids": rng.integers(3, 8000, mask.shape), "attention_mask": mask}


def run(model: ir.Model, extra: Sequence[str] = ()) -> list[Floats]:
    """The logits, and other values by name, as ONNX Runtime says without its own optimisations."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.extend(values[name] for name in extra)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(copy).SerializeToString(), options)
    return session.run(None, feed())


def count(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def distance(model: ir.Model, other: ir.Model) -> float:
    """The largest difference of two graphs' logits, in standard deviations of the first's."""
    (before,), (after,) = run(model), run(other)
    assert before.std(axis=0).mean() > 0.5, "a model that says nothing proves nothing"
    return float(np.abs(after - before).max() / before.std(axis=0).mean())


def test_split_gemms(kind: str, clean: ir.Model) -> None:
    """Every streamed matrix is multiplied with in a MatMul, without reshapes around it."""
    split = clean.clone()
    split_gemms(split)
    common.RemoveUnusedNodesPass()(split)
    gemms = [node for node in split.graph if node.op_type == "Gemm"]
    assert [str(node.inputs[1].name) for node in gemms] == ["head.weight"]  # type: ignore[union-attr]
    flattened = count(clean)["Gemm"] - 1
    assert flattened == (4 * LAYERS if kind == "gpt2" else 0)
    assert count(split)["MatMul"] == count(clean)["MatMul"] + flattened
    assert count(split)["Reshape"] == count(clean)["Reshape"] - 2 * flattened
    assert distance(clean, split) < BOUND


def test_fuse_norms(kind: str, clean: ir.Model) -> None:
    """Each norm is one operator, those of queries and keys too; nothing is left of the old."""
    fused = clean.clone()
    fuse_norms(fused)
    common.RemoveUnusedNodesPass()(fused)
    norms = [node for node in fused.graph if node.op_type == "RMSNormalization"]
    assert len(norms) == NORMS[kind]
    assert not {"Sqrt", "Reciprocal", "ReduceMean"} & count(fused).keys()
    assert distance(clean, fused) < BOUND
    for node in norms:  # a mutant
        node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1.0)
    assert not norms or distance(clean, fused) > 100 * BOUND


def test_fuse_rotary(kind: str, clean: ir.Model) -> None:
    """Queries and keys of each layer are turned by one operator, as far as they are turned."""
    fused = clean.clone()
    fuse_rotary(fused)
    common.RemoveUnusedNodesPass()(fused)
    common.TopologicalSortPass()(fused)
    turned = [node for node in fused.graph if node.op_type == "RotaryEmbedding"]
    assert len(turned) == (0 if kind == "gpt2" else 2 * LAYERS)
    assert count(fused)["Neg"] == 0
    for node in turned:
        source, cos, sin = node.inputs[:3]
        assert source is not None
        assert source.shape is not None
        assert source.shape[-1] == TURNED[kind]
        assert cos is not sin
    assert len({node.inputs[3] for node in turned}) <= 1
    assert distance(clean, fused) < BOUND
    for node in turned[:1]:  # a mutant: keys and queries of one layer fall out of step
        node.replace_input_with(2, node.inputs[1])
        assert distance(clean, fused) > 100 * BOUND


def test_scale_queries(kind: str, clean: ir.Model) -> None:
    """Where queries come from a norm, its gain holds the scale of the scores."""
    fused = clean.clone()
    fuse_norms(fused)
    fuse_rotary(fused)
    common.RemoveUnusedNodesPass()(fused)
    scaled = fused.clone()
    scale_queries(scaled)
    common.RemoveUnusedNodesPass()(scaled)
    gone = LAYERS if kind == "gemma3" else 0
    assert count(scaled)["Mul"] == count(fused)["Mul"] - gone
    assert distance(fused, scaled) < BOUND
    held = [value for name, value in scaled.graph.initializers.items() if name.endswith(".scaled")]
    assert len(held) == gone
    every = clean.clone()
    optimise(every)
    assert sum(name.endswith(".scaled") for name in every.graph.initializers) == gone
    for value in held:  # a mutant
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() * 2, name=value.name)
    assert not held or distance(fused, scaled) > 100 * BOUND


def test_last_token(clean: ir.Model) -> None:
    """Behind the last layer's keys and values there are COPIES rows a text; elsewhere all."""
    before = clean.clone()
    for earlier in (split_gemms, fuse_norms, fuse_rotary):
        earlier(before)
    common.RemoveUnusedNodesPass()(before)
    after = before.clone()
    last_token(after)
    common.RemoveUnusedNodesPass()(after)
    common.TopologicalSortPass()(after)
    assert count(after)["GatherElements"] == 0
    assert distance(before, after) < BOUND

    products = streamed_products(after)
    widths = rows_of(after, list(products.values()))
    whole = rows_of(before, list(streamed_products(before).values()))
    assert len(set(whole)) == 1
    every = whole[0]
    assert every > 40
    expected = [
        COPIES if ".1." in name and not any(part in name for part in FOR_ALL) else every
        for name in products
    ]
    assert widths == expected
    assert widths.count(COPIES) >= 3


def streamed_products(model: ir.Model) -> dict[str, str]:
    """What the large matrices are multiplied to, by the matrices' names."""
    return {
        str(node.inputs[1].name): str(node.outputs[0].name)
        for node in model.graph
        if node.op_type == "MatMul"
        and node.inputs[1] is not None
        and isinstance(node.inputs[1].const_value, StreamedWeight)
    }


def rows_of(model: ir.Model, names: Sequence[str]) -> list[int]:
    """How many rows a text has in the given values [batch, rows, n]."""
    return [value.shape[1] for value in run(model, names)[1:]]


def test_the_last_layers_scores_are_the_last_tokens(kind: str, clean: ir.Model) -> None:
    """All passes together; attention in the last layer asks for COPIES queries, over all keys."""
    optimised = clean.clone()
    optimise(optimised)
    assert distance(clean, optimised) < BOUND
    weights = [str(node.outputs[0].name) for node in optimised.graph if node.op_type == "Exp"]
    found = [value.shape for value in run(optimised, weights)[1:]]
    prefixed, own = found[-2:]  # each layer's, over the prefix's keys and the text's
    assert len(found) == 2 * LAYERS
    assert (prefixed[2], own[2]) == (COPIES, COPIES)
    assert own[3] > 40
    assert {shape[2] for shape in found[:-2]} == {own[3]}
    assert {node.domain for node in optimised.graph} == {""}
