"""Whether TensorRT can read a graph, as far as that can be said without TensorRT.

What is checked: every operator and type is among those that its parser lists, axes are constant,
zero points are zero, and shapes follow from the inputs' shapes alone, never from the numbers in
them. What only TensorRT can say is whether it builds an engine, and how fast that is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from trimexport.errors import ExportError
from trimexport.graph.passes.lower import OPSET

from .operators import CONSTANT, READ

# Operator -> the places of inputs that are shapes, or parts of shapes.
_SHAPED = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Slice": (1, 2, 4),
    "Split": (1,),
    "Tile": (1,),
}
# What may be done to a shape on the way to such an input.
_ON_SHAPES = frozenset(
    (
        *("Add", "Sub", "Mul", "Div", "Min", "Max", "ReduceProd", "ReduceSum", "Cast", "Identity"),
        *("Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Equal", "Where"),
    )
)
_QUANTIZING = ("QuantizeLinear", "DequantizeLinear")
_DATA = {"Where": 1}  # the place of the data, where that is not the first


@dataclass(frozen=True)
class _Graph:
    model: onnx.ModelProto
    types: Mapping[str, int]
    makers: Mapping[str, onnx.NodeProto]
    constants: Mapping[str, onnx.TensorProto]


def require_readable(path: Path) -> None:
    """Check a written graph; its weights are not read.

    Raises:
        ExportError: naming everything in it that TensorRT's parser does not read.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
    unread = list(dict.fromkeys(problems(model)))
    if unread:
        more = f" (and {len(unread) - 5} more)" if len(unread) > 5 else ""
        raise ExportError(
            f"TensorRT cannot read the graph: {'; '.join(unread[:5])}{more}; build this model "
            "without --tensorrt"
        )


def problems(model: onnx.ModelProto) -> Iterator[str]:
    """Everything in a graph with inferred types that TensorRT does not read, in words."""
    graph = _look_at(model)
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx"):
            yield f"operators of {entry.domain}"
        elif entry.version > OPSET:
            yield f"opset {entry.version}, beyond {OPSET}"
    for node in model.graph.node:
        if node.op_type not in READ:
            yield f"operator {node.op_type}"
            continue
        place = _DATA.get(node.op_type, 0)
        kind = graph.types.get(node.input[place]) if node.input else None
        if node.input and kind not in READ[node.op_type]:
            yield f"{node.op_type} of {_type_name(kind)}"
        axes = _input(node, CONSTANT.get(node.op_type))
        if axes and axes not in graph.constants:
            yield f"{node.op_type} along axes that are computed"
        if node.op_type in _QUANTIZING and not _is_zero(graph, _input(node, 2)):
            yield f"{node.op_type} with a zero point"
        if not all(_is_shape(graph, _input(node, at)) for at in _SHAPED.get(node.op_type, ())):
            yield f"{node.op_type} to a size that depends on the tokens"


def _look_at(model: onnx.ModelProto) -> _Graph:
    described = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    types = {item.name: item.type.tensor_type.elem_type for item in described}
    types |= {item.name: item.data_type for item in model.graph.initializer}
    return _Graph(
        model=model,
        types=types,
        makers={name: node for node in model.graph.node for name in node.output},
        constants={item.name: item for item in model.graph.initializer},
    )


def _input(node: onnx.NodeProto, place: int | None) -> str:
    """The name of an input; nothing where it is left out."""
    return "" if place is None or len(node.input) <= place else node.input[place]


def _is_zero(graph: _Graph, name: str) -> bool:
    """Whether a zero point is left out or a constant zero."""
    if not name:
        return True
    tensor = graph.constants.get(name)
    return tensor is not None and not onnx.numpy_helper.to_array(tensor).any()


def _is_shape(graph: _Graph, name: str) -> bool:
    """Whether a value follows from constants and shapes alone."""
    if not name or name in graph.constants:
        return True
    node = graph.makers.get(name)
    if node is None:  # an input of the graph
        return False
    if node.op_type in ("Shape", "Size"):
        return True
    return node.op_type in _ON_SHAPES and all(_is_shape(graph, source) for source in node.input)


def _type_name(kind: int | None) -> str:
    return "an unknown type" if not kind else onnx.TensorProto.DataType.Name(kind).lower()
