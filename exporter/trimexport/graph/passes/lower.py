"""Write a graph in operators of opset 20, which engines for GPUs read in every version.

Requires: a graph of opset 23 whose operators beyond opset 20 are `RMSNormalization` and
`RotaryEmbedding`, as `fuse_norms` and `fuse_rotary` write them.
Ensures: the same numbers up to the rounding of float32; norms and rotary embeddings are elementary
operators again; a running sum is a product with a triangle of ones, exact up to 2 ** 24 tokens;
integers have no `Clip`.

TensorRT's parser knows the two operators since 10.15 and opsets up to 20 since 10.0. It lists
`CumSum` and `Clip` for floating-point numbers alone (`tensorrt.operators`), and makes a loop over
all tokens of `CumSum`. ONNX Runtime finds the norms again by itself and fuses them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from trimexport.graph.nodes import constant, described, input_of, node, require, shape_of

OPSET = 20
_FLOAT, _INT64 = ir.DataType.FLOAT, ir.DataType.INT64


def lower(model: ir.Model) -> None:
    """Apply the pass in place; what the old nodes leave is dead code."""
    graph = model.graph
    tables: dict[tuple[ir.Value, ir.Value | None], ir.Value] = {}
    triangles: dict[str, ir.Value] = {}
    for old in list(graph):
        if old.op_type == "RMSNormalization":
            _replace(graph, old, _norm(graph, old))
        elif old.op_type == "RotaryEmbedding":
            _replace(graph, old, _rotation(graph, old, tables))
        elif old.op_type == "CumSum" and _is_integer(old):
            _replace(graph, old, _running_sum(graph, old, triangles))
        elif old.op_type == "Clip" and _is_integer(old):
            _replace(graph, old, _bounded(old))
    model.opset_imports[""] = OPSET


def _replace(graph: ir.Graph, old: ir.Node, new: Sequence[ir.Node]) -> None:
    """Put nodes in the place of one, the last of them making its result."""
    graph.insert_after(old, new)
    result = new[-1].outputs[0]
    result.shape, result.type = old.outputs[0].shape, old.outputs[0].type
    old.outputs[0].replace_all_uses_with(result)
    graph.remove(old, safe=True)


def _norm(graph: ir.Graph, old: ir.Node) -> list[ir.Node]:
    """The nodes of x / sqrt(mean(x ** 2) + epsilon) * gain over the last dimension."""
    source, gain = input_of(old, 0), input_of(old, 1)
    shape = shape_of(source)
    each = [*shape[:-1], 1]
    written = require(old.attributes.get("epsilon"), f"the epsilon of {described(old)}")
    epsilon = written.as_float()
    two = constant(graph, "two", np.array(2, dtype=np.float32))
    axis = constant(graph, "int_-1", np.array([-1]))
    least = constant(graph, f"epsilon_{epsilon:g}", np.array(epsilon, dtype=np.float32))
    square = node("Pow", [source, two], shape=shape)
    mean = node("ReduceMean", [square.outputs[0], axis], shape=each, keepdims=1)
    total = node("Add", [mean.outputs[0], least], shape=each)
    root = node("Sqrt", [total.outputs[0]], shape=each)
    normed = node("Div", [source, root.outputs[0]], shape=shape)
    return [square, mean, total, root, normed, node("Mul", [normed.outputs[0], gain])]


def _rotation(
    graph: ir.Graph, old: ir.Node, tables: dict[tuple[ir.Value, ir.Value | None], ir.Value]
) -> list[ir.Node]:
    """The nodes that turn both halves of each head [batch, heads, T, size] by the angles of each
    position."""
    source, cosines, sines = (input_of(old, place) for place in range(3))
    positions = old.inputs[3] if len(old.inputs) > 3 else None
    *places, last = shape_of(source, rank=4)
    size = require(last if isinstance(last, int) else None, f"a fixed last size of {source.name}")
    half = [*places, size // 2]
    made: list[ir.Node] = []
    for table in (cosines, sines):
        if (table, positions) not in tables:
            made += _angles(graph, table, positions)
            tables[table, positions] = made[-1].outputs[0]
    cos, sin = tables[cosines, positions], tables[sines, positions]

    def add(op_type: str, *inputs: ir.Value) -> ir.Value:
        made.append(node(op_type, inputs, shape=half))
        return made[-1].outputs[0]

    start, middle, end, axis = (
        constant(graph, f"int_{n}", np.array([n])) for n in (0, size // 2, size, -1)
    )
    low, high = add("Slice", source, start, middle, axis), add("Slice", source, middle, end, axis)
    first = add("Sub", add("Mul", low, cos), add("Mul", high, sin))
    second = add("Add", add("Mul", high, cos), add("Mul", low, sin))
    return [*made, node("Concat", [first, second], axis=-1)]


def _angles(graph: ir.Graph, table: ir.Value, positions: ir.Value | None) -> list[ir.Node]:
    """The nodes that make each token's angles, [batch, 1, T, size / 2], of a table [T, size / 2] at
    positions [batch, T], or of a table [batch, T, size / 2] that has a row for each token."""
    axis = constant(graph, "int_1", np.array([1]))
    if positions is None:
        batch, *rest = shape_of(table, rank=3)
        return [node("Unsqueeze", [table, axis], shape=[batch, 1, *rest])]
    batch, length = shape_of(positions, rank=2)
    shape = [batch, length, shape_of(table, rank=2)[1]]
    rows = node("Gather", [table, positions], shape=shape, axis=0)
    spread = node("Unsqueeze", [rows.outputs[0], axis], shape=[batch, 1, *shape[1:]])
    return [rows, spread]


def _is_integer(old: ir.Node) -> bool:
    return old.outputs[0].dtype == _INT64


def _running_sum(graph: ir.Graph, old: ir.Node, triangles: dict[str, ir.Value]) -> list[ir.Node]:
    """The nodes that sum integers [batch, T] up to each place: a product with ones on and above the
    diagonal."""
    source, shape = input_of(old, 0), shape_of(old.outputs[0], rank=2)
    length = str(shape[1])
    made: list[ir.Node] = []
    if length not in triangles:
        made = _triangle(graph, source, shape[1])
        triangles[length] = made[-1].outputs[0]
    real = node("Cast", [source], shape=shape, to=int(_FLOAT))
    total = node("MatMul", [real.outputs[0], triangles[length]], shape=shape)
    back = node("Cast", [total.outputs[0]], dtype=_INT64, shape=shape, to=int(_INT64))
    return [*made, real, total, back]


def _triangle(graph: ir.Graph, source: ir.Value, length: int | ir.SymbolicDim) -> list[ir.Node]:
    """The nodes that make float32 [T, T], one on and above the diagonal and zero below it, for a
    source [batch, T]."""
    zero, one = (constant(graph, f"scalar_{n}", np.array(n)) for n in (0, 1))
    first, last = (constant(graph, f"int_{n}", np.array([n])) for n in (0, 1))
    size = node("Shape", [source], dtype=_INT64, shape=[1], start=1, end=2)
    count = node("Squeeze", [size.outputs[0]], dtype=_INT64, shape=[])
    line = node("Range", [zero, count.outputs[0], one], dtype=_INT64, shape=[length])
    places = line.outputs[0]
    row = node("Unsqueeze", [places, last], dtype=_INT64, shape=[length, 1])
    column = node("Unsqueeze", [places, first], dtype=_INT64, shape=[1, length])
    under = node(
        "LessOrEqual",
        [row.outputs[0], column.outputs[0]],
        dtype=ir.DataType.BOOL,
        shape=[length, length],
    )
    ones = node("Cast", [under.outputs[0]], shape=[length, length], to=int(_FLOAT))
    return [size, count, line, row, column, under, ones]


def _bounded(old: ir.Node) -> list[ir.Node]:
    """The nodes that keep integers between two bounds, one of which may be missing."""
    made: list[ir.Node] = []
    value = input_of(old, 0)
    for op_type, bound in zip(("Max", "Min"), old.inputs[1:], strict=False):
        if bound is not None:
            shape = old.outputs[0].shape
            made.append(node(op_type, [value, bound], dtype=_INT64, shape=shape))
            value = made[-1].outputs[0]
    require(bool(made), f"a bound of {described(old)}")
    return made
