"""Static int8 for TensorRT: weights and activations as codes, in explicit Q/DQ pairs.

    y = DequantizeLinear(QuantizeLinear(x, s)) @ DequantizeLinear(codes, channel scales)

Weights have a scale per output channel, and every activation one scale for all texts, which
calibration texts gave: the largest value of any channel, smoothed and rotated, is code 127.
Everything is symmetric and in standard operators; what stands between quantised products is float16
as in `fp16`, scales included, so that an engine runs int8 products with float16 results. The
embedding is looked up in float16.

A larger value than any calibration text's is cut off. That, and one scale for all tokens, is what
an engine pays for products without a reduction over the row before them; where a processor has
time for that reduction `int8` is the better scheme.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import torch

from trimexport.errors import ExportError
from trimexport.graph.nodes import constant, initializer, node

from .fp16 import to_fp16
from .int8 import Factors, Int8Matrix, Scales, half_scale, quantize_rows
from .matrices import Product, Requantized, products
from .paired_rows import LEVELS

_HALF, _INT8 = ir.DataType.FLOAT16, ir.DataType.INT8


def to_static_int8(
    model: ir.Model, factors: Mapping[str, Factors], largest: Mapping[str, torch.Tensor]
) -> list[Requantized]:
    """Quantise every product with a streamed matrix, in place; return what became of its weights,
    those of them too that are float16 now.

    Args:
        factors: weight name -> smoothing and rotation (see `smooth` and `rotate`).
        largest: parameter name -> the largest value of each of its inputs over calibration texts,
            smoothed and rotated, float32 [inputs] (see `activation_ranges`).

    Raises:
        ExportError: calibration did not see an input.
    """
    found = products(model)
    halves = to_fp16(model)
    quantised: dict[ir.Value, ir.Value] = {}
    tensors: list[Requantized] = []
    for product in found:
        smoothing = factors.get(product.name, Factors())
        source = product.source
        if source not in quantised:
            scale = _activation_scale(product, largest)
            quantised[source] = _round_trip(model.graph, source, scale)
        product.node.replace_input_with(0, quantised[source])
        tensors.append(_quantise_weight(model.graph, product, smoothing))
    read = {id(it.const_value) for it in model.graph.initializers.values() if it.uses()}
    return [*(half for half in halves if id(half) in read), *tensors]


def _activation_scale(product: Product, largest: Mapping[str, torch.Tensor]) -> np.ndarray:
    """The scale of a product's input, float16."""
    seen = largest.get(product.parameter)
    if seen is None:
        raise ExportError(
            f"calibration saw no input of {product.parameter}, so static int8 cannot be built; "
            "build this model with --tensorrt fp16"
        )
    return half_scale(seen.amax() / LEVELS).numpy().astype(np.float16)


def _round_trip(graph: ir.Graph, source: ir.Value, scale: np.ndarray) -> ir.Value:
    """Quantise and dequantise an activation [..., inputs]."""
    step = constant(graph, f"{source.name}.scale", scale)
    zero = constant(graph, "int8_zero", np.array(0, dtype=np.int8))
    codes = node("QuantizeLinear", [source, step, zero], dtype=_INT8, shape=source.shape)
    back = node("DequantizeLinear", [codes.outputs[0], step], dtype=_HALF, shape=source.shape)
    producer = source.producer()
    assert producer is not None
    graph.insert_after(producer, [codes, back])
    return back.outputs[0]


def _quantise_weight(graph: ir.Graph, product: Product, smoothing: Factors) -> Int8Matrix:
    """Let a product read codes int8 [inputs, outputs], dequantised by column."""
    old = product.node.inputs[1]
    codes = Int8Matrix(
        product.weight, smoothing, lambda part: quantize_rows(part, _HALF), _HALF, "static"
    )
    outputs = codes.shape.numpy()[1]
    scales = initializer(graph, Scales(codes, (outputs,), f"{product.name}.static_scale"))
    weight = node(
        "DequantizeLinear",
        [initializer(graph, codes), scales],
        dtype=_HALF,
        shape=codes.shape,
        axis=1,
    )
    graph.insert_before(product.node, weight)
    product.node.replace_input_with(1, weight.outputs[0])
    if old is not None and not old.uses():
        graph.initializers.pop(old.name or "", None)
    return codes
