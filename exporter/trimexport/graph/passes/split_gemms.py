"""Write GPT-2's layers, which the tracer flattens around a Gemm, as a product and a sum.

Requires: a Gemm with a streamed matrix, plain, between a Reshape from [batch, T, inputs] and one
to [batch, T, outputs].
Ensures: MatMul and Add on [batch, T, ...] take the place of all three; the same numbers.

Gain: no target shapes are measured, and the layers of every family look alike to what follows.
"""

from __future__ import annotations

import onnx_ir as ir

from trimexport.graph.nodes import described, input_of, maker_of, node, require
from trimexport.graph.streamed_weights import StreamedWeight

_PLAIN = {"alpha": 1, "beta": 1, "transA": 0, "transB": 0}


def split_gemms(model: ir.Model) -> None:
    """Apply the pass in place; what the old nodes leave is dead code."""
    for gemm in list(model.graph):
        weight = gemm.inputs[1] if gemm.op_type == "Gemm" else None
        if weight is None or not isinstance(weight.const_value, StreamedWeight):
            continue
        require(_is_plain(gemm), f"a plain product in {described(gemm)}")
        before = maker_of(input_of(gemm, 0), "Reshape")
        readers = (use.node for use in gemm.outputs[0].uses() if use.node.op_type == "Reshape")
        after = require(next(readers, None), f"a Reshape that reads {described(gemm)}")
        shape = after.outputs[0].shape
        product = node("MatMul", [before.inputs[0], weight], shape=shape)
        total = node("Add", [product.outputs[0], input_of(gemm, 2)], shape=shape)
        model.graph.insert_after(after, [product, total])
        after.outputs[0].replace_all_uses_with(total.outputs[0])


def _is_plain(gemm: ir.Node) -> bool:
    """Whether the product is inputs @ weight + bias: nothing scaled, nothing transposed."""
    given = {name: gemm.attributes[name].value for name in _PLAIN if name in gemm.attributes}
    return {**_PLAIN, **given} == _PLAIN
