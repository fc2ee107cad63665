"""Read what a written graph's head reads, and put another head in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from trimexport.graph.task_inputs import head_rows
from trimexport_runtime.bundle import OUTPUT

from .written_graph import check, require_written

WEIGHT, BIAS = "head.weight", "head.bias"
BLOCKS, BLOCKS_BIAS = "head_weight", "head_bias"
"""A head in blocks of rows (see `graph.task_inputs`), of a bundle that was made of a backbone and a
pack."""

CORRECTION = "head.correction"
_ROWS, _SHAPE, _BY_TEXT, _FIRST = "head.rows", "head.shape", "head.by_text", "head.first"
_SUM, _SUMS, _ROWS_APART = "head.hidden", "head.corrected_rows", "head.rows_apart"
_APART, _TOGETHER = "head.rows_apart_shape", "head.hidden_shape"


@dataclass(frozen=True)
class Head:
    """A linear layer: logits = hidden @ weight.T + bias. `weight` is float32 [rows, hidden], `bias`
    float32 [rows]."""

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def read_head(model: onnx.ModelProto) -> Head:
    """The head of a graph: a row for each label token, or for each label once it was fitted.

    Raises:
        ExportError: the graph has none.
    """
    node = _head_node(model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    if BLOCKS in node.input:
        return _head_of_blocks(tensors)
    weight, bias = (
        require_written(tensors.get(name), f'constant "{name}"') for name in (WEIGHT, BIAS)
    )
    return Head(numpy_helper.to_array(weight), numpy_helper.to_array(bias))


def _head_of_blocks(tensors: Mapping[str, onnx.TensorProto]) -> Head:
    """A head in blocks, without the zeros that fill the last one. A bias of zeros was left out."""
    blocks = numpy_helper.to_array(require_written(tensors.get(BLOCKS), f'constant "{BLOCKS}"'))
    bias = tensors.get(BLOCKS_BIAS)
    biases = (
        np.zeros(blocks.shape[::2], np.float32) if bias is None else numpy_helper.to_array(bias)
    )
    weight, own = head_rows({BLOCKS: blocks, BLOCKS_BIAS: biases})
    rows = 1 + int(np.flatnonzero(weight.any(axis=1) | (own != 0)).max())
    return Head(weight[:rows], own[:rows])


def give_hidden(model: onnx.ModelProto) -> str:
    """Make what the head reads an output of the graph, and return its name: the hidden states,
    float32 [batch * rows of a text, hidden], of which each text's first row is its answer's.

    Raises:
        ExportError: the graph has no head.
    """
    name = hidden_name(model)
    kind = onnx.TensorProto.FLOAT
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return name


def hidden_name(model: onnx.ModelProto) -> str:
    """The name of what the head reads.

    Raises:
        ExportError: the graph has no head.
    """
    return str(_head_node(model).input[0])


def add_to_hidden(model: onnx.ModelProto, more: npt.NDArray[np.floating]) -> None:
    """Add a constant [rows, hidden] to what the head reads.

    Requires: a graph with as many rows of hidden states for each text, or with one row and copies
    of it (see `graph.classifier.COPIES`).
    Ensures: the head reads the sum, which later heads (see `put_head`) do too.

    Raises:
        ExportError: the graph has no head, or the result is not valid ONNX.
    """
    graph, head = model.graph, _head_node(model)
    rows, size = more.shape
    make = onnx.helper.make_node
    values = {CORRECTION: more.astype(np.float32)}
    if rows == 1:
        nodes = [make("Add", [head.input[0], CORRECTION], [_SUM], name=CORRECTION)]
    else:
        values |= {
            _APART: np.array([-1, rows, size], dtype=np.int64),
            _TOGETHER: np.array([-1, size], dtype=np.int64),
        }
        nodes = [
            make("Reshape", [head.input[0], _APART], [_ROWS_APART], name=_ROWS_APART),
            make("Add", [_ROWS_APART, CORRECTION], [_SUMS], name=CORRECTION),
            make("Reshape", [_SUMS, _TOGETHER], [_SUM], name=_SUM),
        ]
    place = list(graph.node).index(head)
    for node in reversed(nodes):
        graph.node.insert(place, node)
    graph.node[place + len(nodes)].input[0] = _SUM
    graph.initializer.extend(numpy_helper.from_array(value, n) for n, value in values.items())
    check(model)


def put_head(model: onnx.ModelProto, head: Head, rows: int) -> None:
    """Let the logits be those of another head, with a row for each label.

    Requires: a graph whose hidden states have `rows` rows for each text, at least 2, for one row is
    computed in another order than several (see `graph.classifier.COPIES`).
    Ensures: Gemm, Reshape and Gather of each text's first row end the graph; what followed the old
    head (soft-cap, sum over a label's words, calibration) is gone with it.

    Raises:
        ExportError: the graph has no head, or the result is not valid ONNX.
    """
    graph = model.graph
    hidden = _head_node(model).input[0]
    _keep_what_makes(graph, hidden)
    shape = np.array([-1, rows, len(head.bias)], dtype=np.int64)
    make = onnx.helper.make_node
    graph.node.extend(
        [
            make("Gemm", [hidden, WEIGHT, BIAS], [_ROWS], name="head", transB=1),
            make("Reshape", [_ROWS, _SHAPE], [_BY_TEXT], name=_BY_TEXT),
            make("Gather", [_BY_TEXT, _FIRST], [OUTPUT], name=OUTPUT, axis=1),
        ]
    )
    for name, value in ((WEIGHT, head.weight), (BIAS, head.bias), (_SHAPE, shape)):
        graph.initializer.append(numpy_helper.from_array(value, name))
    graph.initializer.append(numpy_helper.from_array(np.array(0, dtype=np.int64), _FIRST))
    check(model)


def _head_node(model: onnx.ModelProto) -> onnx.NodeProto:
    kinds = {WEIGHT: "Gemm", BLOCKS: "MatMul"}
    readers: list[onnx.NodeProto] = [
        node
        for node in model.graph.node
        for name in kinds.keys() & set(node.input)
        if node.op_type == kinds[name]
    ]
    return require_written(readers[0] if len(readers) == 1 else None, "trimmed head")


def _keep_what_makes(graph: onnx.GraphProto, value: str) -> None:
    """Remove every node and constant that is not needed for a value."""
    needed = {value}
    kept = []
    for node in reversed(graph.node):  # their order is that in which they can run
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    made = {name for node in kept for name in node.output}
    known = [info for info in graph.value_info if info.name in made]
    for field, items in (
        (graph.node, kept[::-1]),
        (graph.initializer, constants),
        (graph.value_info, known),
    ):
        del field[:]
        field.extend(items)
