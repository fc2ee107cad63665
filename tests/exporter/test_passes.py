"""Each pass runs a graph before and after: same numbers, and what it promises."""

from __future__ import annotations

# ruff: noqa: UP037, F821 (dimensions have names, which are no types)
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx_ir.passes import common
from onnxscript import FLOAT, INT64, script
from onnxscript import opset20 as op

from models import llama, save
from trimexport.bundle.onnx_file import write_onnx
from trimexport.graph.nodes import constant, input_of, require, shape_of
from trimexport.graph.passes.fold_constants import fold_constants
from trimexport.graph.passes.fold_transposes import fold_transposes
from trimexport.graph.passes.fuse_norms import fuse_norms
from trimexport.graph.passes.name_dimensions import name_dimensions
from trimexport.graph.passes.static_reshapes import static_reshapes
from trimexport.graph.streamed_weights import Bindings, StreamedWeight, bind
from trimexport.graph.trace import OPSET
from trimexport.source.checkpoint import open_checkpoint

WEIGHT = "model.layers.0.mlp.gate_proj.weight"


def run(model: ir.Model, directory: Path, **inputs: np.ndarray) -> np.ndarray:
    """What ONNX Runtime says, with its own optimisations off."""
    copy = ir.from_proto(ir.to_proto(model))
    directory.mkdir()
    write_onnx(copy, directory / "graph.onnx", directory / "graph.data")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(directory / "graph.onnx"), options)
    return session.run(None, inputs)[0]


def test_a_constant_is_found_by_what_it_holds() -> None:
    """A name that other numbers have already is not theirs."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET})
    one = constant(graph, "one", np.array(1, dtype=np.float32))
    assert constant(graph, "one", np.array(1, dtype=np.float32)) is one
    others = [
        np.array(1, dtype=np.int64),
        np.array([1], dtype=np.float32),
        np.array(1 + 2**-23, dtype=np.float32),
    ]
    made = [constant(graph, "one", other) for other in others]
    assert [value.name for value in made] == ["one_2", "one_3", "one_4"]
    for value, other in zip(made, others, strict=True):
        held = value.const_value.numpy()
        assert held.dtype == other.dtype
        assert np.array_equal(held, other)
        assert constant(graph, "one", other) is value


def both(
    model: ir.Model, apply: Callable[[ir.Model], None], tmp_path: Path, **inputs: np.ndarray
) -> None:
    """Assert that a pass changes no number."""
    before = run(model, tmp_path / "before", **inputs)
    apply(model)
    after = run(model, tmp_path / "after", **inputs)
    assert np.array_equal(before, after)
    assert before.std() > 0


def count(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


@script()
def measured_reshape(x: FLOAT["batch", "sequence", 6]) -> FLOAT["batch", "sequence", 2, 3]:
    batch = op.Shape(x, start=0, end=1)
    sequence = op.Shape(x, start=1, end=2)
    target = op.Concat(batch, sequence, op.Constant(value_ints=[2, 3]), axis=0)
    return op.Reshape(x, target)


def test_static_reshapes(tmp_path: Path) -> None:
    model = ir.from_proto(measured_reshape.to_model_proto())
    (reshape,) = [node for node in model.graph if node.op_type == "Reshape"]
    reshape.outputs[0].shape = ir.Shape(["batch", "sequence", 2, 3])
    x = np.random.default_rng(0).normal(size=(2, 5, 6)).astype(np.float32)
    both(model, static_reshapes, tmp_path, x=x)
    target = reshape.inputs[1]
    assert target is not None
    assert target.const_value is not None
    assert target.const_value.numpy().tolist() == [0, 0, 2, 3]


def test_a_reshape_with_two_unknown_dimensions_is_left_alone() -> None:
    model = ir.from_proto(measured_reshape.to_model_proto())
    (reshape,) = [node for node in model.graph if node.op_type == "Reshape"]
    reshape.outputs[0].shape = ir.Shape(["sequence", "batch", 2, 3])
    static_reshapes(model)
    assert reshape.inputs[1] is not None
    assert reshape.inputs[1].const_value is None


@script()
def constant_sum(x: FLOAT["n", 4], w: FLOAT[4]) -> FLOAT["n", 4]:
    one = op.Constant(value_float=1.0)
    return op.CastLike(op.Mul(x, op.Add(w, one)), x)


def test_fold_constants(tmp_path: Path) -> None:
    """Gemma's `1 + w` is computed once, at build time; casts to the same type go."""
    model = ir.from_proto(constant_sum.to_model_proto())
    weight = model.graph.inputs.pop()
    weight.const_value = ir.tensor(np.array([0.5, -1, 2, 3], np.float32), name="w")
    model.graph.register_initializer(weight)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    both(model, fold_constants, tmp_path, x=x)
    assert count(model)["Add"] == 0
    assert count(model)["CastLike"] == 0


@script()
def gemma_norm(x: FLOAT["n", 4], gain: FLOAT[4]) -> FLOAT["n", 4]:
    mean = op.ReduceMean(op.Pow(x, op.Constant(value_float=2.0)), op.Constant(value_ints=[-1]))
    root = op.Sqrt(op.Add(mean, op.Constant(value_float=1e-3)))
    normed = op.Mul(x, op.Reciprocal(root))
    return op.Neg(op.Mul(normed, op.Add(gain, op.Constant(value_float=1.0))))


@script()
def llama_norm(x: FLOAT["n", 4], gain: FLOAT[4]) -> FLOAT["n", 4]:
    mean = op.ReduceMean(op.Pow(x, op.Constant(value_float=2.0)), op.Constant(value_ints=[-1]))
    root = op.Sqrt(op.Add(op.Constant(value_float=1e-3), mean))
    return op.Neg(op.Mul(gain, op.Mul(op.Reciprocal(root), x)))


@script()
def norm_of_another(x: FLOAT["n", 4], gain: FLOAT[4]) -> FLOAT["n", 4]:
    """What is squared is not what is scaled."""
    square = op.Pow(op.Add(x, gain), op.Constant(value_float=2.0))
    mean = op.ReduceMean(square, op.Constant(value_ints=[-1]))
    root = op.Sqrt(op.Add(mean, op.Constant(value_float=1e-3)))
    return op.Neg(op.Mul(gain, op.Mul(x, op.Reciprocal(root))))


@script()
def norm_over_texts(x: FLOAT["n", 4], gain: FLOAT[4]) -> FLOAT["n", 4]:
    mean = op.ReduceMean(op.Pow(x, op.Constant(value_float=2.0)), op.Constant(value_ints=[0]))
    root = op.Sqrt(op.Add(mean, op.Constant(value_float=1e-3)))
    return op.Neg(op.Mul(gain, op.Mul(x, op.Reciprocal(root))))


@script()
def norm_of_fourth_powers(x: FLOAT["n", 4], gain: FLOAT[4]) -> FLOAT["n", 4]:
    mean = op.ReduceMean(op.Pow(x, op.Constant(value_float=4.0)), op.Constant(value_ints=[-1]))
    root = op.Sqrt(op.Add(mean, op.Constant(value_float=1e-3)))
    return op.Neg(op.Mul(gain, op.Mul(x, op.Reciprocal(root))))


def with_gain(function: Any) -> ir.Model:
    """A norm's graph with its gain bound and folded, as `fuse_norms` requires it."""
    proto = function.to_model_proto()
    proto.opset_import[0].version = OPSET
    model = ir.from_proto(proto)
    gain = model.graph.inputs.pop()
    gain.const_value = ir.tensor(np.array([0.5, -1, 2, 3], np.float32), name="gain")
    model.graph.register_initializer(gain)
    fold_constants(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return model


@pytest.mark.parametrize("function", [gemma_norm, llama_norm], ids=["gemma", "llama"])
def test_fuse_norms(tmp_path: Path, function: Any) -> None:
    """One operator, whichever way round the products stand, and Gemma's gain with its one."""
    model = with_gain(function)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    before = run(model, tmp_path / "before", x=x)
    fuse_norms(model)
    common.RemoveUnusedNodesPass()(model)
    after = run(model, tmp_path / "after", x=x)
    assert np.abs(before - after).max() < 1e-6
    assert before.std() > 1
    norm, _ = model.graph
    assert norm.op_type == "RMSNormalization"
    assert norm.attributes["epsilon"].as_float() == pytest.approx(1e-3)
    gain = norm.inputs[1]
    assert gain is not None
    assert gain.const_value is not None
    one = 1 if function is gemma_norm else 0
    assert gain.const_value.numpy().tolist() == [0.5 + one, -1 + one, 2 + one, 3 + one]


@pytest.mark.parametrize("function", [norm_of_another, norm_over_texts, norm_of_fourth_powers])
def test_what_only_looks_like_a_norm_is_left_alone(function: Any) -> None:
    model = with_gain(function)
    before = count(model)
    fuse_norms(model)
    assert count(model) == before


@script()
def linear(x: FLOAT["n", 64], w: FLOAT[160, 64]) -> FLOAT["n", 160]:
    return op.MatMul(x, op.Transpose(w, perm=[1, 0]))


def unbound() -> ir.Model:
    """`linear` as a tracer leaves it: the weight is an initializer without its numbers."""
    model = ir.from_proto(linear.to_model_proto())
    weight = model.graph.inputs.pop()
    weight.const_value = ir.LazyTensor(
        lambda: pytest.fail("nobody may read it"),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape([160, 64]),
        name="w",
    )
    model.graph.register_initializer(weight)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fold_transposes(tmp_path: Path, dtype: torch.dtype) -> None:
    """A weight streams transposed from the checkpoint; the data file holds it that way."""
    directory = save(llama(), tmp_path / "model", dtype=dtype)
    checkpoint = open_checkpoint(directory, "", None)
    model = unbound()
    bind(model, Bindings(streamed={"w": WEIGHT}, values={}), checkpoint)
    x = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    both(model, fold_transposes, tmp_path, x=x)
    assert count(model)["Transpose"] == 0
    weights = [v.const_value for v in model.graph.initializers.values() if v.uses()]
    assert [type(weight) for weight in weights] == [StreamedWeight]
    expected = checkpoint.read(WEIGHT).numpy().T
    assert np.array_equal(weights[0].numpy(), expected)


@script()
def doubled(input_ids: INT64["s1", "s2"]) -> INT64["s1", "s2"]:
    return op.Add(input_ids, input_ids)


def test_name_dimensions() -> None:
    model = ir.from_proto(doubled.to_model_proto())
    inner = next(iter(model.graph)).outputs[0]
    inner.shape = ir.Shape(["s1", "s2 + 3"])
    name_dimensions(model)
    assert str(model.graph.inputs[0].shape) == "[batch,sequence]"
    assert str(inner.shape) == "[batch,sequence + 3]"


def test_an_unknown_initializer_is_refused(tmp_path: Path) -> None:
    from trimexport import ExportError

    checkpoint = open_checkpoint(save(llama(), tmp_path), "", None)
    model = unbound()
    with pytest.raises(ExportError, match="the numbers of w, which the checkpoint does not hold"):
        bind(model, Bindings(streamed={}, values={}), checkpoint)


def test_what_a_graph_lacks_is_said() -> None:
    """With the versions that traced it, for another release of theirs may be the reason."""
    from importlib.metadata import version

    from trimexport import ExportError

    graph = ir.from_proto(doubled.to_model_proto()).graph
    add = next(iter(graph))
    assert require(add, "an Add") is add
    assert input_of(add, 1) is graph.inputs[0]
    assert shape_of(graph.inputs[0]) is graph.inputs[0].shape
    both = f"torch {version('torch')} and transformers {version('transformers')}"
    message = re.escape(f"{both} write it, lacks a Neg; install older releases of the two")
    with pytest.raises(ExportError, match=message):
        require(next((node for node in graph if node.op_type == "Neg"), None), "a Neg")
    with pytest.raises(ExportError, match="lacks four dimensions"):
        require(len(shape_of(graph.inputs[0])) == 4, "four dimensions")
    with pytest.raises(ExportError, match="lacks input 2 of Add"):
        input_of(add, 2)
    graph.inputs[0].shape = None
    with pytest.raises(ExportError, match="lacks the shape of input_ids"):
        shape_of(graph.inputs[0])


def test_an_invalid_graph_is_refused(tmp_path: Path) -> None:
    from trimexport import ExportError

    model = ir.from_proto(doubled.to_model_proto())
    next(iter(model.graph)).op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match="not valid ONNX"):
        write_onnx(model, tmp_path / "graph.onnx", tmp_path / "graph.data")


def test_large_tensors_stream_to_aligned_places(tmp_path: Path) -> None:
    """The data file's hash is that of its bytes, and each range holds its tensor."""
    from trimexport_runtime.integrity import sha256_of

    model = ir.from_proto(constant_sum.to_model_proto())
    weight = model.graph.inputs.pop()
    array = np.arange(4096, dtype=np.float32)
    weight.shape = ir.Shape([4096])
    weight.const_value = ir.tensor(array, name="w")
    model.graph.register_initializer(weight)
    seen: list[int] = []
    graph, data = tmp_path / "graph.onnx", tmp_path / "graph.data"
    assert write_onnx(model, graph, data, seen.append) == sha256_of(data)
    assert sum(seen) == array.nbytes == data.stat().st_size
    loaded = onnx.load(graph)
    assert np.array_equal(onnx.numpy_helper.to_array(loaded.graph.initializer[0]), array)
