"""Write reshape targets as constants: 0 where a dimension is copied, -1 where one is inferred.

Requires: symbolic shapes on every value, as the tracer records them.
Ensures: a Reshape whose dimensions are all constant, or equal to the input's dimension at the
same place, or the only remaining one, has a constant target; nodes that measured and assembled
the old target are left for dead-code removal. Same numbers.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trimexport.graph.nodes import constant, input_of


def static_reshapes(model: ir.Model) -> None:
    """Apply the pass in place."""
    for node in list(model.graph):
        if node.op_type != "Reshape":
            continue
        source, target = input_of(node, 0), input_of(node, 1)
        if target.const_value is not None or source.shape is None:
            continue
        result = node.outputs[0].shape
        dims = None if result is None else _dims(source.shape, result)
        if dims is None:
            continue
        node.replace_input_with(1, _constant(model.graph, dims))
        node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)


def _dims(source: ir.Shape, result: ir.Shape) -> list[int] | None:
    """The constant target, or None where more than one dimension would have to be inferred."""
    dims: list[int] = []
    for place, dim in enumerate(result):
        if isinstance(dim, int):
            dims.append(dim)
        elif place < len(source) and source[place] == dim:
            dims.append(0)
        else:
            dims.append(-1)
    return dims if dims.count(-1) <= 1 else None


def _constant(graph: ir.Graph, dims: list[int]) -> ir.Value:
    """An initializer holding `dims`, shared by every reshape to the same target."""
    name = "reshape_" + "_".join(str(dim).replace("-", "m") for dim in dims)
    return constant(graph, name, np.array(dims, dtype=np.int64))
