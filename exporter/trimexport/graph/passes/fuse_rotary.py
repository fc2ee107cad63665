"""Write a rotary embedding as one operator, `RotaryEmbedding` (opset 23).

Requires: initializers bound and folded; queries and keys [batch, heads, T, head], the cosines and
sines [1, 1, T, head], or [batch, 1, T, head] where a token's place in its row is not its position,
with their second half equal to the first.
Ensures: x * cos + rotate_half(x) * sin (Su et al. 2021, in the halves of GPT-NeoX) is one node that
reads half the table; the same numbers.

Gain: 7 nodes, four of them copies, become one; on 16 x 63 tokens of 8 heads of 256 5.4 ms become
1.1. (The tables themselves stay computed in the graph: T cosines and sines for all layers
together cost 0.05 ms, and constants for every position of a long context would cost memory.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimexport.graph.nodes import (
    constant,
    made_by,
    node,
    operand,
    require,
    shape_of,
    token_ids_of,
)


@dataclass(frozen=True)
class _Rotation:
    source: ir.Value
    cos: ir.Value
    sin: ir.Value
    size: int


def fuse_rotary(model: ir.Model) -> None:
    """Apply the pass in place; what the old nodes leave is dead code."""
    graph = model.graph
    tables: dict[ir.Value, ir.Value] = {}
    positions: dict[str, ir.Value] = {}
    for total in list(graph):
        rotation = _match(total) if total.op_type == "Add" else None
        if rotation is None:
            continue
        for table in (rotation.cos, rotation.sin):
            if table not in tables:
                tables[table] = _half(graph, table, rotation.size)
        inputs = [rotation.source, tables[rotation.cos], tables[rotation.sin]]
        length = str(_dim(rotation.cos, -2))
        if _is_shared(rotation.cos):
            if length not in positions:
                positions[length] = _positions(graph, rotation.source, tables[rotation.cos])
            inputs.append(positions[length])
        result = total.outputs[0]
        fused = node("RotaryEmbedding", inputs, shape=result.shape)
        graph.insert_after(total, fused)
        result.replace_all_uses_with(fused.outputs[0])


def _match(total: ir.Node) -> _Rotation | None:
    """The rotation whose two products `total` adds; None where it adds something else."""
    for straight, turned in (total.inputs, reversed(total.inputs)):
        one, two = made_by(straight, "Mul"), made_by(turned, "Mul")
        halves = two and operand(two, "Concat")
        if not one or not halves or len(halves[0].inputs) != 2:
            continue
        negative = made_by(halves[0].inputs[0], "Neg")
        second = negative and made_by(negative.inputs[0], "Slice")
        first = made_by(halves[0].inputs[1], "Slice")
        if not first or not second or first.inputs[0] is not second.inputs[0]:
            continue
        source = first.inputs[0]
        if source not in one.inputs or source is None or len(source.shape or ()) != 4:
            continue
        cos = one.inputs[1] if one.inputs[0] is source else one.inputs[0]
        size = _dim(source, -1)
        if cos is not None and isinstance(size, int) and _dim(first.outputs[0], -1) == size // 2:
            return _Rotation(source, cos, halves[1], size)
    return None


def _dim(value: ir.Value, axis: int) -> int | ir.SymbolicDim:
    return shape_of(value)[axis]


def _maker(table: ir.Value) -> ir.Node:
    return require(table.producer(), f"a node that computes the rotary table {table.name}")


def _is_shared(table: ir.Value) -> bool:
    """Whether all rows have the same table."""
    return _dim(table, 0) == 1


def _half(graph: ir.Graph, table: ir.Value, size: int) -> ir.Value:
    """The first half of a table: of [1, 1, T, size] as [T, size / 2], of [batch, 1, T, size] as
    [batch, T, size / 2]."""
    ends = [constant(graph, f"int_{n}", np.array([n])) for n in (0, size // 2, -1)]
    batch, length = _dim(table, 0), _dim(table, -2)
    half = node("Slice", [table, *ends], shape=[batch, 1, length, size // 2])
    if _is_shared(table):
        target = constant(graph, f"reshape_m1_{size // 2}", np.array([-1, size // 2]))
        flat = node("Reshape", [half.outputs[0], target], shape=[length, size // 2])
    else:
        axis = constant(graph, "int_1", np.array([1]))
        flat = node("Squeeze", [half.outputs[0], axis], shape=[batch, length, size // 2])
    graph.insert_after(_maker(table), [half, flat])
    return flat.outputs[0]


def _positions(graph: ir.Graph, source: ir.Value, table: ir.Value) -> ir.Value:
    """The row of the table that each token reads, int64 [batch, T]: 0 to T - 1 in every text."""
    batch, length = _dim(source, 0), _dim(source, 2)
    whole = {"dtype": ir.DataType.INT64}
    rows = node("Shape", [token_ids_of(graph)], **whole, shape=[1], start=0, end=1)
    count = node("Shape", [table], **whole, shape=[1], start=0, end=1)
    shape = node("Concat", [rows.outputs[0], count.outputs[0]], **whole, shape=[2], axis=0)
    zero, one = (constant(graph, f"scalar_{n}", np.array(n)) for n in (0, 1))
    flat = node("Squeeze", [count.outputs[0]], **whole, shape=[])
    line = node("Range", [zero, flat.outputs[0], one], **whole, shape=[length])
    grid = node("Expand", [line.outputs[0], shape.outputs[0]], **whole, shape=[batch, length])
    graph.insert_after(_maker(table), [rows, count, shape, flat, line, grid])
    return grid.outputs[0]
