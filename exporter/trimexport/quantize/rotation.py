"""Rotation: spread over its neighbours what a few channels hold, before codes are made of it.

Activations that share a scale lose their digits to the largest among them. A Hadamard matrix makes
of 64 channels as many sums of all of them with different signs, divided by 8: one that is far
larger than the others becomes an eighth of itself in each, and what is left are numbers much alike.
The matrix is orthogonal, so where the weights that read the channels are turned by it too, products
stay what they were (QuaRot: Ashkboos et al. 2024). The weights are turned once, as they stream by.
An activation is turned while a text is classified, by one small product for all matrices that read
it:

    x @ w == (x @ blocks(H)) @ (blocks(H) @ w)

No texts are needed for it. Every sum has 64 terms, which ONNX Runtime adds up in one order whatever
the batch is (see `prefix_attention.PIECE`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from trimexport.graph.nodes import constant, node

from .hadamard import hadamard, width_of
from .int8 import Factors
from .matrices import Product, products


def rotate(
    model: ir.Model,
    factors: Mapping[str, Factors],
    left_out: Callable[[Product], object] = lambda product: False,
) -> dict[str, Factors]:
    """Turn what the products with streamed matrices read, in place, each value once.

    Args:
        factors: weight name -> smoothing, which comes before it (see `smooth`).
        left_out: tells products that go on to read what they read.

    Returns:
        the same for every product, where its weight is to be turned too.
    """
    found = dict(factors)
    turned: dict[ir.Value, ir.Value] = {}
    for product in products(model):
        source, (inputs, _) = product.source, product.weight.shape.numpy()
        if width_of(inputs) == 1 or left_out(product):
            continue
        if source not in turned:
            turned[source] = _turn(model.graph, source, inputs)
        product.node.replace_input_with(0, turned[source])
        found[product.name] = replace(found.get(product.name, Factors()), rotated=True)
    return found


def _turn(graph: ir.Graph, source: ir.Value, inputs: int) -> ir.Value:
    """An activation [batch, T, inputs] times the matrix, block by block."""
    width = width_of(inputs)
    matrix = constant(graph, f"hadamard_{width}", hadamard(width).numpy())
    apart = constant(graph, f"blocks_of_{inputs}", np.array([0, 0, inputs // width, width]))
    whole = constant(graph, f"all_of_{inputs}", np.array([0, 0, inputs]))
    lead = [None, None] if source.shape is None else list(source.shape[:2])
    blocks = [*lead, inputs // width, width]
    cut = node("Reshape", [source, apart], shape=blocks)
    product = node("MatMul", [cut.outputs[0], matrix], shape=blocks)
    joined = node("Reshape", [product.outputs[0], whole], shape=[*lead, inputs])
    producer = source.producer()
    assert producer is not None
    graph.insert_after(producer, [cut, product, joined])
    return joined.outputs[0]
