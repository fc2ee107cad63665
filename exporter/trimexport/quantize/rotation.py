"""Rotation: spread over its neighbours what a few channels hold, before codes are made of it.

Activations that share a scale lose their digits to the largest among them. A Hadamard matrix makes
of 64 channels as many sums of all of them with different signs, divided by 8: one that is far
larger than the others becomes an eighth of itself in each, and what is left are numbers much alike.
The matrix is orthogonal, so where the weights that read the channels are turned by it too, products
stay what they were (QuaRot: Ashkboos et al. 2024). The weights are turned once, as they stream by.
An activation is turned while a text is classified, by a small product for all matrices that read
it:

    x @ w == (x @ blocks(H)) @ (blocks(H) @ w)

Between its projections the MLP's activations stand out from their blocks too, so there each channel
is turned with its like in the other blocks as well, by a second product. Norms have evened out what
they make; and the heads that attention joins are often much alike, so sums over them would stand
out anew: both are turned within blocks alone (measured in docs/concepts.md).

No texts are needed for it. Every sum has at most 64 terms, which ONNX Runtime adds up in one order
whatever the batch is (see `prefix_attention.PIECE`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from trimexport.graph.nodes import constant, node

from .hadamard import Turn, hadamard, turn_of
from .int8 import Factors
from .matrices import Product, products

_EVEN = ("RMSNormalization", "LayerNormalization", "Reshape")


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
    turned: dict[ir.Value, tuple[Turn, ir.Value]] = {}
    for product in products(model):
        source, (inputs, _) = product.source, product.weight.shape.numpy()
        if turn_of(inputs).width == 1 or left_out(product):
            continue
        if source not in turned:
            turn = turn_of(inputs, across=_is_uneven(source))
            turned[source] = turn, _turn(model.graph, source, inputs, turn)
        turn, value = turned[source]
        product.node.replace_input_with(0, value)
        found[product.name] = replace(found.get(product.name, Factors()), turn=turn)
    return found


def _is_uneven(source: ir.Value) -> bool:
    """Whether an activation comes neither from a norm nor from attention, whose heads a Reshape
    joins; the pick of last tokens apart."""
    maker = source.producer()
    while maker is not None and maker.op_type == "GatherND":
        picked = maker.inputs[0]
        maker = None if picked is None else picked.producer()
    return maker is not None and maker.op_type not in _EVEN


def _turn(graph: ir.Graph, source: ir.Value, inputs: int, turn: Turn) -> ir.Value:
    """An activation [batch, T, inputs], turned."""
    width, count = turn.width, turn.blocks
    each = [inputs // width // count, count, width] if count > 1 else [inputs // width, width]
    lead = [None, None] if source.shape is None else list(source.shape[:2])
    blocks = [*lead, *each]
    matrix = constant(graph, f"hadamard_{width}", hadamard(width).numpy())
    apart = constant(graph, f"blocks_of_{inputs}_{count}", np.array([0, 0, *each]))
    whole = constant(graph, f"all_of_{inputs}", np.array([0, 0, inputs]))
    made = [node("Reshape", [source, apart], shape=blocks)]
    made.append(node("MatMul", [made[-1].outputs[0], matrix], shape=blocks))
    if count > 1:
        between = constant(graph, f"hadamard_{count}", hadamard(count).numpy())
        made.append(node("MatMul", [between, made[-1].outputs[0]], shape=blocks))
    made.append(node("Reshape", [made[-1].outputs[0], whole], shape=[*lead, inputs]))
    producer = source.producer()
    assert producer is not None
    graph.insert_after(producer, made)
    return made[-1].outputs[0]
