"""What the passes ask of a graph: who made a value, what a constant holds; and making nodes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trimexport.errors import ExportError

_T = TypeVar("_T")


def require(value: _T | None, lacked: str) -> _T:
    """`value`, which a pass cannot do without.

    Args:
        value: what was looked for in a traced graph, or whether it is as it has to be.
        lacked: what the graph lacks where `value` is None or False, for the message: "a Reshape
            before node_addmm".

    Raises:
        ExportError: `value` is None or False.
    """
    if value is None or value is False:
        raise ExportError(
            f"the model's graph, as torch {version('torch')} and transformers "
            f"{version('transformers')} write it, lacks {lacked}; install older releases of the "
            "two, or a newer one of trimexport"
        )
    return value


def input_of(node: ir.Node, place: int) -> ir.Value:
    """The input of a node at `place`, counted from 0.

    Raises:
        ExportError: it is left out.
    """
    value = node.inputs[place] if place < len(node.inputs) else None
    return require(value, f"input {place} of {described(node)}")


def shape_of(value: ir.Value, rank: int | None = None) -> ir.Shape:
    """A value's shape, whose dimensions may be symbols.

    Raises:
        ExportError: the tracer left none, or one that has not `rank` dimensions.
    """
    shape = require(value.shape, f"the shape of {value.name}")
    require(rank in (None, len(shape)), f"{rank} dimensions of {value.name}, which is {shape}")
    return shape


def maker_of(value: ir.Value, op_type: str) -> ir.Node:
    """The node that makes `value`, an `op_type`.

    Raises:
        ExportError: another node makes it, or none.
    """
    return require(made_by(value, op_type), f"the {op_type} that makes {value.name}")


def token_ids_of(graph: ir.Graph) -> ir.Value:
    """The graph's first input: a text's tokens, int64 [batch, sequence].

    Raises:
        ExportError: the graph has no input, or not one of two dimensions.
    """
    token_ids = require(graph.inputs[0] if graph.inputs else None, "an input for the tokens")
    shape_of(token_ids, rank=2)
    return token_ids


def described(node: ir.Node) -> str:
    """A node for a message: its operator and its name."""
    return f"{node.op_type} {node.name}"


def made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes `value`, if it is an `op_type`."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def operand(node: ir.Node, op_type: str) -> tuple[ir.Node, ir.Value] | None:
    """The `op_type` that makes one of a node's two inputs, and the other input; None where no
    `op_type` makes either. The inputs may stand in either order."""
    first, second = node.inputs[0], node.inputs[1]
    for one, other in ((first, second), (second, first)):
        maker = made_by(one, op_type)
        if maker is not None and other is not None:
            return maker, other
    return None


def number(value: ir.Value | None) -> float | None:
    """The number that a constant of one element holds."""
    tensor = None if value is None else value.const_value
    return float(tensor.numpy().item()) if tensor is not None and tensor.size == 1 else None


def constant(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """An initializer that holds `array`, made where it is not there yet. It is called `name`, or
    where that is the name of other numbers `name` and a number."""
    numbers = np.array(array)
    for free in (name, *(f"{name}_{again}" for again in range(2, len(graph.initializers) + 3))):
        there = graph.initializers.get(free)
        if there is None:
            return initializer(graph, ir.tensor(numbers, name=free))
        if _holds(there, numbers):
            return there
    raise AssertionError("a graph has fewer names than it has initializers")


def _holds(value: ir.Value, numbers: npt.NDArray[np.generic]) -> bool:
    """Whether an initializer is just these numbers, of this type and shape."""
    tensor = value.const_value
    if tensor is None or tuple(tensor.shape.numpy()) != numbers.shape:
        return False
    held = tensor.numpy()
    return held.dtype == numbers.dtype and held.tobytes() == numbers.tobytes()


def initializer(graph: ir.Graph, tensor: ir.TensorProtocol) -> ir.Value:
    """A new initializer that holds `tensor` and has its name."""
    value = ir.Value(
        name=tensor.name,
        shape=ir.Shape(tensor.shape.numpy()),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def node(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    *,
    dtype: ir.DataType = ir.DataType.FLOAT,
    shape: Sequence[int | str | ir.SymbolicDim | None] | ir.Shape | None = None,
    **attributes: int | float | str | Sequence[int],
) -> ir.Node:
    """A node of the standard operator set with one output of the given type and shape."""
    result = ir.Value(
        type=ir.TensorType(dtype),
        shape=None if shape is None else ir.Shape(list(shape)),
    )
    return ir.node(op_type, inputs, attributes=attributes, outputs=[result])
