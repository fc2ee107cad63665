"""fp16: where the types meet, and that the islands hold what float16 does not.

ONNX Runtime computes float16 in float32 on most CPUs, so what float16 does to the numbers is shown
by ONNX's reference evaluator, which rounds the result of every operator.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from families import make
from tiny import PROMPT, TEXTS, edit_tensors
from trimexport import BuildSpec, ExportError, Texts, build
from trimexport.bundle.onnx_file import write_onnx
from trimexport.graph.compile import compile_graph
from trimexport.graph.passes.lower import lower
from trimexport.graph.prefix_attention import PLAIN
from trimexport.graph.streamed_weights import StreamedWeight
from trimexport.model.layerwise import LayerwiseModel
from trimexport.planning import plan
from trimexport.progress import Silent
from trimexport.quantize.fp16 import HalfWeight, to_fp16
from trimexport.source.checkpoint import open_checkpoint
from trimexport_runtime import Classifier, read_manifest

HALF, FULL = ir.DataType.FLOAT16, ir.DataType.FLOAT
# Where hidden states and the results of the norms are this much larger than Gemma's, they leave
# float16; a power of two changes no other digit.
FACTOR = 2.0**13


def compiled(model: Path) -> ir.Model:
    spec = BuildSpec(model=str(model), labels=("positive", "negative"), prompt=PROMPT)
    planned = plan(spec)
    return compile_graph(planned, LayerwiseModel(planned.checkpoint), Silent(), PLAIN)


def written(graph: ir.Model, directory: Path) -> onnx.ModelProto:
    directory.mkdir(parents=True)
    write_onnx(graph, directory / "graph.onnx", directory / "graph.onnx_data")
    return onnx.load(directory / "graph.onnx")


def answers(model: onnx.ModelProto) -> npt.NDArray[np.float32]:
    """Logits of a few rows of tokens, each operator by itself in its own type."""
    ids = np.random.default_rng(0).integers(5, 7000, (4, 20))
    mask = np.ones_like(ids)
    mask[1, 9:] = 0
    mask[2, 1:] = 0
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(model).run(None, {"input_ids": ids, "attention_mask": mask})
    return np.asarray(found[0])


def float16_everywhere(model: onnx.ModelProto) -> onnx.ModelProto:
    """The mutant: a float32 graph with every float32 of it made float16."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    full, half = TensorProto.FLOAT, TensorProto.FLOAT16
    for tensor in copy.graph.initializer:
        if tensor.data_type == full:
            numbers = numpy_helper.to_array(tensor)
            limits = np.finfo(np.float16)
            clipped = np.clip(numbers, limits.min, limits.max).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(clipped, tensor.name))
    for node in copy.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == full:
                attribute.i = half
    copy.graph.ClearField("value_info")
    copy.graph.output[0].type.tensor_type.elem_type = half
    return copy


def magnify(directory: Path) -> None:
    """Make a Gemma 3's residual stream larger by FACTOR: embeddings and post-norms write so much
    more, and every other norm divides it away, so that the function is the same."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if "embed_tokens" in name:
                tensor.mul_(FACTOR)
            elif "post_" in name:  # a norm multiplies by 1 + w
                tensor.copy_((1 + tensor) * FACTOR - 1)

    edit_tensors(directory, change)


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> ir.Model:
    """A Gemma 3's graph in float32. Shared: clone it."""
    directory = tmp_path_factory.mktemp("models") / "gemma3"
    return compiled(make("gemma3", directory, tie_word_embeddings=False))


def test_where_the_types_meet(gemma3: ir.Model) -> None:
    graph = gemma3.clone()
    to_fp16(graph)
    types: dict[str, set[ir.DataType | None]] = {}
    for node in graph.graph:
        types.setdefault(node.op_type, set()).add(node.outputs[0].dtype)
        assert len({v.dtype for v in node.inputs if v is not None and v.dtype in (HALF, FULL)}) < 2
    islands = ("RMSNormalization", "RotaryEmbedding", "Softmax", "Gemm")
    assert all(types[name] == {FULL} for name in islands)
    assert types["Gelu"] == {HALF}
    assert types["MatMul"] == {HALF, FULL}  # with weights, and inside the attention
    assert [value.dtype for value in graph.graph.inputs] == [ir.DataType.INT64] * 2
    assert [value.dtype for value in graph.graph.outputs] == [FULL]
    weights = [value.const_value for value in graph.graph.initializers.values()]
    assert not [weight for weight in weights if isinstance(weight, StreamedWeight)]


def test_each_value_is_cast_once(gemma3: ir.Model) -> None:
    """Eight casts a layer, in its order: the norm's result, queries, keys, values, the mix, what
    the output product adds, the norm's result, what the MLP adds. The embedding's is one more, and
    so is the last layer's, which has its queries from other rows than its keys."""
    graph = gemma3.clone()
    to_fp16(graph)
    casts = {
        node.outputs[0]: source
        for node in graph.graph
        if node.op_type == "Cast" and (source := node.inputs[0]) is not None
        if {source.dtype, node.outputs[0].dtype} == {HALF, FULL}
    }
    assert len(casts) == 2 * 8 + 2
    assert len(set(casts.values())) == len(casts)
    assert not casts.keys() & set(casts.values())


def test_the_graph_that_was_cloned_stays_as_it_is(gemma3: ir.Model) -> None:
    """A clone's values share their types with the original's, which other variants are made of."""
    to_fp16(gemma3.clone())
    assert HALF not in {value.dtype for node in gemma3.graph for value in node.outputs}


def test_hidden_states_beyond_float16(gemma3: ir.Model, tmp_path: Path) -> None:
    directory = make("gemma3", tmp_path / "model", tie_word_embeddings=False)
    magnify(directory)
    large = compiled(directory)
    before = written(gemma3.clone(), tmp_path / "before")
    full = written(large.clone(), tmp_path / "full")
    expected = answers(full)
    assert expected.std(axis=0).min() > 1
    assert np.allclose(expected, answers(before), atol=1e-3)  # the same function
    plain = answers(float16_everywhere(before)).astype(np.float32)
    assert np.abs(plain - expected).max() < 0.2  # which float16 could compute,
    assert not np.isfinite(answers(float16_everywhere(full))).any()  # but for its range
    to_fp16(large)
    lower(large)
    found = answers(written(large, tmp_path / "half"))
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 0.05


@pytest.mark.parametrize("family", ["gpt2", "phi3"])
def test_families_with_other_mlps(family: str, tmp_path: Path) -> None:
    """Biases and another activation; gate and up in one product."""
    graph = compiled(make(family, tmp_path / "model", layers=1))
    expected = answers(written(graph.clone(), tmp_path / "full"))
    to_fp16(graph)
    lower(graph)
    found = answers(written(graph, tmp_path / "half"))
    assert 0 < np.abs(found - expected).max() < 0.05


@pytest.mark.parametrize("transposed", [False, True])
def test_weights_stream_as_float16(tiny_model: Path, transposed: bool) -> None:
    checkpoint = open_checkpoint(tiny_model, "", None)
    source = "model.layers.0.mlp.gate_proj.weight"
    weight = HalfWeight(StreamedWeight(checkpoint, source, transposed, "w"))
    stored = checkpoint.read(source).numpy()
    expected = (stored.T if transposed else stored).astype(np.float16)
    assert np.array_equal(np.concatenate(list(weight.blocks())), expected)
    assert weight.error is not None
    difference = np.linalg.norm(stored.astype(np.float16).astype(np.float32) - stored)
    assert weight.error == pytest.approx(difference / np.linalg.norm(stored), rel=1e-4)


def test_a_weight_that_is_no_float16_is_refused(tiny_copy: Path) -> None:
    name = "model.layers.0.mlp.gate_proj.weight"
    edit_tensors(tiny_copy, lambda tensors: tensors[name][3].fill_(70000))
    weight = HalfWeight(StreamedWeight(open_checkpoint(tiny_copy, "", None), name, True, "w"))
    with pytest.raises(ExportError, match=f"tensor {name} holds 70000, float16 ends at 65504; b"):
        list(weight.blocks())


def test_bundle(tiny_model: Path, tmp_path: Path) -> None:
    """One build: the variant's entry, its size, and its answers on the CPU."""
    spec = BuildSpec(
        model=str(tiny_model),
        labels=("positive", "negative"),
        prompt=PROMPT,
        precision=("fp32", "fp16"),
    )
    built = build(spec, tmp_path / "bundle", sample=Texts(TEXTS))
    full, half = read_manifest(built.directory).variants
    assert (half.graph, half.precision) == ("onnx/model_fp16.onnx", "fp16")
    assert "CUDAExecutionProvider" in half.providers
    assert half.operators == ("ai.onnx",)
    assert half.bytes < 0.6 * full.bytes
    assert half.weight_error is not None
    assert 1e-5 < half.weight_error < 2**-11
    expected, found = (
        Classifier.load(built.directory, variant=name).logits(list(TEXTS))
        for name in ("fp32", "fp16")
    )
    assert np.abs(found - expected).max() < 0.05
