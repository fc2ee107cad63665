"""Write GPT-2's layers, which the tracer flattens around a Gemm, as a product and a sum.

Requires: a Gemm with a streamed matrix, plain, between a Reshape from [batch, T, inputs] and one
to [batch, T, outputs].
Ensures: MatMul and Add on [batch, T, ...] take the place of all three; the same numbers.

Gain: no target shapes are measured, and the layers of every family look alike to what follows.
"""

from __future__ import annotations

import onnx_ir as ir

from trimexport.graph.nodes import made_by, node
from trimexport.graph.streamed_weights import StreamedWeight


def split_gemms(model: ir.Model) -> None:
    """Apply the pass in place; what the old nodes leave is dead code."""
    for gemm in list(model.graph):
        weight = gemm.inputs[1] if gemm.op_type == "Gemm" else None
        if weight is None or not isinstance(weight.const_value, StreamedWeight):
            continue
        before = made_by(gemm.inputs[0], "Reshape")
        after = next(use.node for use in gemm.outputs[0].uses())
        assert before is not None
        assert after.op_type == "Reshape"
        shape = after.outputs[0].shape
        product = node("MatMul", [before.inputs[0], weight], shape=shape)
        total = node("Add", [product.outputs[0], gemm.inputs[2]], shape=shape)
        model.graph.insert_after(after, [product, total])
        after.outputs[0].replace_all_uses_with(total.outputs[0])
