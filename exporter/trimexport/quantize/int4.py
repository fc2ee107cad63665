"""int4: weights in blocks along the inputs, of four bits or eight; activations stay float32 in the
graph.

    y[t, n] = sum_k x[t, k] * scale[n, k // BLOCK] * (codes[n, k] - 2 ** (bits - 1))

The product is ONNX Runtime's own `MatMulNBits`, and tokens are looked up by `GatherBlockQuantized`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from trimexport.graph.nodes import initializer
from trimexport.graph.streamed_weights import StreamedTensor, StreamedWeight

from .blocks import BLOCK, nearest, pack
from .matrices import Error, Product, Requantized, embedding, products, rows
from .second_moments import SecondMoments
from .widths import FOUR, rounded, widths

ACCURACY_LEVEL = 4
DOMAIN = "com.microsoft"
# Numbers that are quantised at a time, which keeps what is made on the way small.
STEP = 2**21


class _BlockTensor(Requantized):
    """Packed codes that a weight becomes, and the scales of their blocks."""

    def __init__(self, weight: StreamedWeight, shape: tuple[int, ...], scales: tuple[int, ...]):
        super().__init__(ir.DataType.UINT8, shape, f"{weight.name}.int4")
        self.scales = _Scales(self, scales)


class BlockMatrix(_BlockTensor):
    """A quantised matrix as the graph multiplies with it: uint8 [outputs, blocks, bytes]."""

    def __init__(self, product: Product, bits: int, moments: SecondMoments) -> None:
        inputs, outputs = product.weight.shape.numpy()
        blocks = -(-inputs // BLOCK)
        shape = (outputs, blocks, BLOCK * bits // 8)
        super().__init__(product.weight, shape, (outputs * blocks,))
        self.bits = bits
        self._product = product
        self._moments = moments

    def blocks(self) -> Iterator[np.ndarray]:
        self.scales.made = []
        error = Error()
        for stored in rows(self._product.weight):
            for part in stored.split(max(1, STEP // stored.shape[1])):
                found = rounded(self._product, part, self.bits, self._moments)
                error.add(part, part - found.numbers(part.shape[1]))
                self.scales.made.append(found.scales.flatten().numpy())
                yield (pack(found.codes) if self.bits == FOUR else found.codes).numpy()
        self.error = error.relative()


class BlockTable(_BlockTensor):
    """A quantised embedding, in four bits: uint8 [tokens, hidden / 2]."""

    def __init__(self, weight: StreamedWeight) -> None:
        tokens, hidden = weight.shape.numpy()
        super().__init__(weight, (tokens, hidden // 2), (tokens, -(-hidden // BLOCK)))
        self._weight = weight

    def blocks(self) -> Iterator[np.ndarray]:
        self.scales.made = []
        error = Error()
        for stored in self._weight.stored():
            for part in stored.split(max(1, STEP // stored.shape[1])):
                found = nearest(part, FOUR)
                error.add(part, part - found.numbers(part.shape[1]))
                self.scales.made.append(found.scales.numpy())
                yield pack(found.codes.flatten(1)[:, : part.shape[1]]).numpy()
        self.error = error.relative()


class _Scales(StreamedTensor):
    """A weight's scales. They are made with its codes and kept until they are written, after it; so
    it is read once, and one weight's are in memory at a time."""

    def __init__(self, codes: _BlockTensor, shape: tuple[int, ...]) -> None:
        super().__init__(ir.DataType.FLOAT, shape, f"{codes.name}.scale")
        self._codes = codes
        self.made: list[np.ndarray] = []

    def blocks(self) -> Iterator[np.ndarray]:
        if not self.made:
            for _ in self._codes.blocks():
                pass
        made, self.made = self.made, []
        yield from made


def to_int4(model: ir.Model, moments: SecondMoments) -> list[Requantized]:
    """Quantise every streamed matrix of a graph, and the embedding, in place; return both.

    Args:
        moments: of what the matrices read on calibration texts.

    Raises:
        ExportError: calibration did not see an input.
    """
    tensors: list[Requantized] = []
    found = products(model)
    for product, bits in zip(found, widths(found, moments), strict=True):
        matrix = BlockMatrix(product, bits, moments)
        tensors.append(matrix)
        _multiply(model.graph, product, matrix)
    tensors.append(_look_up(model))
    model.opset_imports[DOMAIN] = 1
    return tensors


def _multiply(graph: ir.Graph, product: Product, matrix: BlockMatrix) -> None:
    """Replace a product by the one with packed weights."""
    inputs, outputs = product.weight.shape.numpy()
    new = ir.node(
        "MatMulNBits",
        [product.source, initializer(graph, matrix), initializer(graph, matrix.scales)],
        attributes={
            "K": inputs,
            "N": outputs,
            "bits": matrix.bits,
            "block_size": BLOCK,
            "accuracy_level": ACCURACY_LEVEL,
        },
        domain=DOMAIN,
        outputs=[_like(product.result)],
    )
    _replace(graph, product.node, new, product.name)


def _look_up(model: ir.Model) -> BlockTable:
    """Look tokens up in a quantised table."""
    graph, lookup = model.graph, embedding(model)
    weight = lookup.inputs[0].const_value  # type: ignore[union-attr]
    assert isinstance(weight, StreamedWeight)
    table = BlockTable(weight)
    new = ir.node(
        "GatherBlockQuantized",
        [initializer(graph, table), lookup.inputs[1], initializer(graph, table.scales)],
        attributes={"bits": FOUR, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1},
        domain=DOMAIN,
        outputs=[_like(lookup.outputs[0])],
    )
    _replace(graph, lookup, new, weight.name or "")
    return table


def _like(value: ir.Value) -> ir.Value:
    """A float32 value of the same shape."""
    return ir.Value(type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)


def _replace(graph: ir.Graph, old: ir.Node, new: ir.Node, weight: str) -> None:
    """Put a node in the place of another, whose weight nobody reads any more."""
    graph.insert_after(old, new)
    old.outputs[0].replace_all_uses_with(new.outputs[0])
    graph.remove(old, safe=True)
    graph.initializers.pop(weight, None)
