"""Move the transposition of a weight from the graph into the way the weight is written.

Requires: initializers bound (`streamed_weights.bind`).
Ensures: no Transpose reads a `StreamedWeight`; each such weight streams transposed instead, under
a name of its own, and the graph computes the same numbers.
"""

from __future__ import annotations

import onnx_ir as ir

from trimexport.graph.nodes import described, initializer, require
from trimexport.graph.streamed_weights import StreamedWeight


def fold_transposes(model: ir.Model) -> None:
    """Apply the pass in place."""
    graph = model.graph
    made: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or not isinstance(source.const_value, StreamedWeight):
            continue
        order = node.attributes.get("perm")
        if list(require(order, f"the order of {described(node)}").as_ints()) != [1, 0]:
            continue
        if source not in made:
            weight = source.const_value.transpose(f"{source.name}.transposed")
            made[source] = initializer(graph, weight)
        node.outputs[0].replace_all_uses_with(made[source])
        graph.remove(node, safe=True)
