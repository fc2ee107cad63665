"""What is refused of a graph for TensorRT, and that ours are read in every opset-20 engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiny
from trimexport import BuildSpec, ExportError
from trimexport.bundle.onnx_file import write_onnx
from trimexport.graph.compile import compile_graph
from trimexport.graph.passes.lower import OPSET, lower
from trimexport.graph.prefix_attention import PLAIN
from trimexport.model.layerwise import LayerwiseModel
from trimexport.planning import plan
from trimexport.progress import Silent
from trimexport.tensorrt.operators import READ
from trimexport.tensorrt.readable import problems, require_readable

FORBIDDEN = ("DynamicQuantizeLinear", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits")


def graph_of(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Any],
    kind: int = TensorProto.FLOAT,
    opset: int = OPSET,
    domain: str | None = None,
) -> onnx.ModelProto:
    """A graph from x [rows, 4] of a type and ids int64 [rows] to y, with its types inferred."""
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info("x", kind, ["rows", 4]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows"]),
        ],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(domain, 1)] if domain else []
    model = helper.make_model(graph, opset_imports=opsets)
    return onnx.shape_inference.infer_shapes(model)


def node(op_type: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    more = ["scale", "zero"] if op_type == "DynamicQuantizeLinear" else []
    return helper.make_node(op_type, inputs, [output, *more], **attributes)


AXIS = {"axis": np.int64(1)}
STEP = {"s": np.float32(1)}
AXES = {"axes": np.array([1])}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (graph_of([node("Relu", "x")], {}), None),
        (graph_of([node("DynamicQuantizeLinear", "x")], {}), "operator DynamicQuantizeLinear"),
        (
            graph_of([node("MatMulInteger", "x", "x")], {}, TensorProto.INT8),
            "operator MatMulInteger",
        ),
        (
            graph_of([node("Gelu", "x", domain="com.microsoft")], {}, domain="com.microsoft"),
            "operators of com.microsoft",
        ),
        (graph_of([node("Relu", "x")], {}, opset=23), "opset 23, beyond 20"),
        (graph_of([node("CumSum", "x", "axis")], AXIS), None),
        (graph_of([node("CumSum", "x", "axis")], AXIS, TensorProto.INT64), "CumSum of int64"),
        (graph_of([node("Clip", "x")], {}, TensorProto.INT64), "Clip of int64"),
        (graph_of([node("ReduceSum", "x", "axes")], AXES), None),
        (graph_of([node("ReduceSum", "x", "ids")], {}), "ReduceSum along axes that are computed"),
        (graph_of([node("Expand", "x", "ids")], {}), "Expand to a size that depends on the tokens"),
        (
            graph_of([node("Shape", "x", output="s"), node("Reshape", "x", "s")], {}),
            None,
        ),
        (
            graph_of(
                [node("ReduceMax", "ids", output="m", keepdims=1), node("Reshape", "x", "m")], {}
            ),
            "Reshape to a size that depends on the tokens",
        ),
        (
            graph_of(
                [node("QuantizeLinear", "x", "s", "z")], {"s": np.float32(1), "z": np.int8(0)}
            ),
            None,
        ),
        (
            graph_of(
                [node("QuantizeLinear", "x", "s", "z")], {"s": np.float32(1), "z": np.int8(3)}
            ),
            "QuantizeLinear with a zero point",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_tensorrt_does_not_read(model: onnx.ModelProto, said: str | None) -> None:
    assert list(problems(model)) == ([] if said is None else [said])


def test_the_refusal_names_everything(tmp_path: Path) -> None:
    nodes = [node("CumSum", "ids", "axis", output="c"), node("Hardmax", "x"), node("Det", "x")]
    onnx.save(graph_of(nodes, {"axis": np.int64(0)}), tmp_path / "graph.onnx")
    with pytest.raises(ExportError) as error:
        require_readable(tmp_path / "graph.onnx")
    assert "CumSum of int64; operator Det" in str(error.value)
    assert "build this model without --tensorrt" in str(error.value)


def test_what_engines_cannot_read_is_in_no_list() -> None:
    assert not set(FORBIDDEN) & set(READ)
    assert not {"RMSNormalization", "RotaryEmbedding", "Attention"} & set(READ)


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> ir.Model:
    """The tiny model's graph with plain attention. Shared: clone it."""
    spec = BuildSpec(model=str(tiny_model), labels=("positive", "negative"), prompt=tiny.PROMPT)
    planned = plan(spec)
    return compile_graph(planned, LayerwiseModel(planned.checkpoint), Silent(), PLAIN)


def test_lowering_is_what_makes_it_readable(plain: ir.Model, tmp_path: Path) -> None:
    graph = plain.clone()
    write_onnx(graph, tmp_path / "before.onnx", tmp_path / "before.data")
    with pytest.raises(ExportError, match="opset 23"):
        require_readable(tmp_path / "before.onnx")
    graph = plain.clone()
    lower(graph)
    write_onnx(graph, tmp_path / "after.onnx", tmp_path / "after.data")
    require_readable(tmp_path / "after.onnx")
    kinds = {each.op_type for each in graph.graph}
    assert not kinds & {"RMSNormalization", "RotaryEmbedding"}
    assert {"Softmax", "Pow", "Sqrt"} <= kinds
