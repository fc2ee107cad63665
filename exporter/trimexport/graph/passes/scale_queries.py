"""Scale queries in the gain of their norm.

Requires: norms and rotary embeddings fused.
Ensures: where queries come from a norm over the head, and a rotary embedding that turns the whole
head lies between it and the scale of the scores, the gain holds the scale and no node does; the
same numbers up to the rounding of float32, and the same bits where the scale is a power of two.

Gain: one node less a layer, which read and wrote the queries.
"""

from __future__ import annotations

import onnx_ir as ir

from trimexport.graph.nodes import initializer, made_by, number, operand


def scale_queries(model: ir.Model) -> None:
    """Apply the pass in place; what the old nodes leave is dead code."""
    for scaled in list(model.graph):
        turned = operand(scaled, "RotaryEmbedding") if scaled.op_type == "Mul" else None
        if turned is None or len(turned[0].outputs[0].uses()) != 1:
            continue
        rotary, factor = turned[0], number(turned[1])
        norm = made_by(rotary.inputs[0], "RMSNormalization")
        if norm is None or factor is None or len(norm.outputs[0].uses()) != 1:
            continue
        old, gain = norm.inputs[1], None if norm.inputs[1] is None else norm.inputs[1].const_value
        if old is None or gain is None:
            continue
        name = f"{old.name}.scaled"
        scaled_gain = initializer(model.graph, ir.tensor(gain.numpy() * factor, name=name))
        norm.replace_input_with(1, scaled_gain)
        scaled.outputs[0].replace_all_uses_with(rotary.outputs[0])
