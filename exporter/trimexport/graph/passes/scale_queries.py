"""Scale queries in the gain of their norm.

Requires: norms and rotary embeddings fused, and no dead code left of that.
Ensures: where queries come from a norm over the head, and a rotary embedding that turns the whole
head lies between it and the scale of the scores, the gain holds the scale and no node does; the
same numbers up to the rounding of float32, and the same bits where the scale is a power of two.

Gain: one node less a layer, which read and wrote the queries.
"""

from __future__ import annotations

import onnx_ir as ir

from trimexport.graph.nodes import constant, input_of, made_by, number, operand, require


def scale_queries(model: ir.Model) -> None:
    """Apply the pass in place."""
    for scaled in list(model.graph):
        turned = operand(scaled, "RotaryEmbedding") if scaled.op_type == "Mul" else None
        if turned is None or len(turned[0].outputs[0].uses()) != 1:
            continue
        rotary, factor = turned[0], number(turned[1])
        norm = made_by(rotary.inputs[0], "RMSNormalization")
        if norm is None or factor is None or len(norm.outputs[0].uses()) != 1:
            continue
        old = input_of(norm, 1)
        gain = require(old.const_value, f"the numbers of {old.name}").numpy() * factor
        norm.replace_input_with(1, constant(model.graph, f"{old.name}.scaled", gain))
        scaled.outputs[0].replace_all_uses_with(rotary.outputs[0])
        model.graph.remove(scaled, safe=True)
