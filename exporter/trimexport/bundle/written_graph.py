"""Change what a written graph does with its logits: a bias behind them, added and taken away.

Graphs are read without their data files, which stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from onnx import numpy_helper

from trimexport.errors import ExportError
from trimexport_runtime.bundle import OUTPUT

CALIBRATION = "calibration"
"""The node that adds the bias, the last one of its graph."""

BIAS = "calibration.bias"
_UNCALIBRATED = "calibration.logits"
_T = TypeVar("_T")


def require_written(value: _T | None, lacked: str) -> _T:
    """`value`, which every graph that trimexport wrote has.

    Raises:
        ExportError: `value` is None; `lacked` names it in the message.
    """
    if value is None:
        raise ExportError(
            f"the graph has no {lacked}, so it is none that trimexport wrote; build the bundle "
            "again"
        )
    return value


def load_graph(path: Path) -> onnx.ModelProto:
    """A `.onnx` file, whose large tensors stay names of places in its data file."""
    return onnx.load(path, load_external_data=False)


def add_bias(model: onnx.ModelProto, bias: Sequence[float]) -> None:
    """Add a bias to the logits, in place of the one that was added before, if any.

    Requires: a graph with the output `logits` float32 [batch, labels].
    Ensures: its last node is `calibration`, an Add of the bias, float32 [labels] and inline; the
    logits are what they were without it, and the bias added in float32.

    Raises:
        ExportError: the result is not valid ONNX.
    """
    remove_bias(model)
    graph = model.graph
    rename_output(graph, OUTPUT, _UNCALIBRATED)
    graph.initializer.append(numpy_helper.from_array(np.array(bias, dtype=np.float32), BIAS))
    graph.node.append(
        onnx.helper.make_node("Add", [_UNCALIBRATED, BIAS], [OUTPUT], name=CALIBRATION)
    )
    check(model)


def remove_bias(model: onnx.ModelProto) -> None:
    """Take away what `add_bias` added, which makes the graph what it was before. A graph without a
    bias stays as it is.

    Raises:
        ExportError: the graph has the addition without its bias, or without the logits before it.
    """
    graph = model.graph
    added = next((node for node in graph.node if node.name == CALIBRATION), None)
    if added is None:
        return
    biases = (tensor for tensor in graph.initializer if tensor.name == BIAS)
    graph.initializer.remove(require_written(next(biases, None), f'constant "{BIAS}"'))
    graph.node.remove(added)
    rename_output(graph, _UNCALIBRATED, OUTPUT)


def check(model: onnx.ModelProto) -> None:
    """Let ONNX's checker look at a graph whose data files are somewhere else.

    Raises:
        ExportError: it is not valid.
    """
    # It would look for the files, and refuses those with a second name in another directory. As
    # inputs the large tensors have a type and a shape, which is all that it reads of them.
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    external = onnx.TensorProto.EXTERNAL
    large = [tensor for tensor in graph.initializer if tensor.data_location == external]
    for tensor in large:
        graph.initializer.remove(tensor)
        graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    try:
        onnx.checker.check_model(copy)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the changed graph is not valid ONNX: {error}") from error


def rename_output(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give another name to the value `old`, which nothing reads."""
    makers = (node for node in graph.node if old in node.output)
    maker = require_written(next(makers, None), f'node that makes "{old}"')
    maker.output[list(maker.output).index(old)] = new
