"""int4: weights in blocks along the inputs, of four bits or eight; activations stay float32 in the
graph.

    y[t, n] = sum_k x[t, k] * scale[n, k // block] * (codes[n, k] - 2 ** (bits - 1))

The product is ONNX Runtime's own `MatMulNBits`. Blocks of a GGUF file that are of this form are
taken over as they are (see `taken_over`). All others are of 32: of four bits so that later inputs
make up for the errors of earlier ones (see `blocks`), or of eight (see `widths`); what these
multiply is turned before (see `rotation`). The embedding is that of `int8`, for four bits there
would cost as much as in all matrices together; one that is taken over is looked up by
`GatherBlockQuantized`, which ONNX Runtime has for processors and not for browsers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch

from trimexport.graph.nodes import constant, initializer, node
from trimexport.graph.streamed_weights import StreamedTensor, StreamedWeight
from trimexport_runtime.bundle import TakenOver

from .blocks import Blocks, Form, pack
from .int8 import Factors, quantize_embedding
from .matrices import Error, Product, Requantized, embedding, products, some_rows
from .second_moments import SecondMoments
from .taken_over import as_stored, form_in_file
from .widths import Rounding, widths

ACCURACY_LEVEL = 4
DOMAIN = "com.microsoft"

Made = Iterator[tuple[torch.Tensor, Blocks]]
"""Rows of a weight, float32 [n, inputs] some at a time, and what becomes of them."""


class _BlockTensor(Requantized):
    """Packed codes that a weight becomes. `scales` are those of their blocks, float32."""

    def __init__(
        self,
        weight: StreamedWeight,
        form: Form,
        shape: tuple[int, ...],
        scales: tuple[int, ...],
        made: Callable[[], Made],
    ) -> None:
        super().__init__(ir.DataType.UINT8, shape, f"{weight.name}.int4")
        self.form = form
        self.scales = _Companion(self, scales, "scale")
        self._made = made

    def blocks(self) -> Iterator[np.ndarray]:
        error = Error()
        self.begin()
        for part, found in self._made():
            error.add(part, found.numbers(part.shape[1]).sub_(part))
            self.note(found)
            yield self.packed(found).numpy()
        self.error = error.relative()

    def begin(self) -> None:
        """Forget what was kept."""
        self.scales.made = []

    def note(self, found: Blocks) -> None:
        """Keep what belongs to the codes."""
        self.scales.made.append(found.scales.numpy())

    def packed(self, found: Blocks) -> torch.Tensor:
        """The codes as the graph reads them."""
        return pack(found.codes, self.form.bits)


class BlockMatrix(_BlockTensor):
    """A quantised matrix as the graph multiplies with it: uint8 [outputs, blocks, bytes]; and
    where its form has them, `offsets` float32 [blocks, outputs]."""

    def __init__(self, weight: StreamedWeight, form: Form, made: Callable[[], Made]) -> None:
        inputs, outputs = weight.shape.numpy()
        blocks = -(-inputs // form.block)
        shape = (outputs, blocks, form.block * form.bits // 8)
        super().__init__(weight, form, shape, (outputs * blocks,), made)
        self.offsets: _Companion | None = None
        if form.offset:
            self.offsets = _Companion(self, (blocks, outputs), "offset", turned=True)

    def begin(self) -> None:
        super().begin()
        if self.offsets is not None:
            self.offsets.made = []

    def note(self, found: Blocks) -> None:
        super().note(found)
        if self.offsets is not None and found.offsets is not None:
            self.offsets.made.append(found.offsets.numpy())


class BlockTable(_BlockTensor):
    """A quantised embedding: uint8 [tokens, bytes]."""

    def __init__(self, weight: StreamedWeight, form: Form, made: Callable[[], Made]) -> None:
        tokens, hidden = weight.shape.numpy()
        scales = (tokens, -(-hidden // form.block))
        super().__init__(weight, form, (tokens, hidden * form.bits // 8), scales, made)
        self._hidden = hidden

    def packed(self, found: Blocks) -> torch.Tensor:
        return pack(found.codes.flatten(1)[:, : self._hidden], self.form.bits)


class _Companion(StreamedTensor):
    """A weight's scales or offsets. They are made with its codes, [n, blocks] some rows at a time,
    and kept until they are written, after it; so it is read once, and one weight's are in memory
    at a time."""

    def __init__(
        self, codes: _BlockTensor, shape: tuple[int, ...], name: str, *, turned: bool = False
    ) -> None:
        super().__init__(ir.DataType.FLOAT, shape, f"{codes.name}.{name}")
        self._codes = codes
        self._turned = turned
        self.made: list[np.ndarray] = []

    def blocks(self) -> Iterator[np.ndarray]:
        if not self.made:
            for _ in self._codes.blocks():
                pass
        whole, self.made = np.concatenate(self.made), []
        yield whole.T if self._turned else whole.reshape(self.shape.numpy())


def to_int4(
    model: ir.Model,
    factors: Mapping[str, Factors],
    calibrate: Callable[[], SecondMoments],
) -> list[Requantized]:
    """Quantise every streamed matrix of a graph, and the embedding, in place; return both, the
    embedding last.

    Args:
        factors: weight name -> how it is turned (see `rotate`); those that are taken over are not.
        calibrate: gives the second moments of what the matrices read on calibration texts; called
            where there are some to round.

    Raises:
        ExportError: calibration did not see an input.
    """
    found = products(model)
    tensors: list[Requantized] = []
    left = []
    sums: dict[ir.Value, ir.Value] = {}
    for product in found:
        form = stored_form(product)
        if form is None:
            left.append(product)
        else:
            matrix = BlockMatrix(product.weight, form, _stored(product.weight))
            matrix.taken_over = True
            tensors.append(matrix)
            _multiply(model.graph, product, matrix, sums)
    if left:
        moments = calibrate()
        roundings = [Rounding(it, factors.get(it.name, Factors()).turn, moments) for it in left]
        for rounding, bits in zip(roundings, widths(roundings), strict=True):
            product = rounding.product
            matrix = BlockMatrix(product.weight, Form(bits), _rounded(rounding, bits))
            tensors.append(matrix)
            _multiply(model.graph, product, matrix, sums)
    model.opset_imports[DOMAIN] = 1
    return [*tensors, _look_up(model)]


def taken_over(weights: Sequence[Requantized]) -> TakenOver | None:
    """How much of a variant's weights is as a GGUF file has it; None where nothing is.

    Args:
        weights: in the order of `to_int4`, which alone takes any over.
    """
    if not any(weight.taken_over for weight in weights):
        return None
    *matrices, table = weights
    count = sum(matrix.taken_over for matrix in matrices)
    return TakenOver(count, len(matrices), table.taken_over)


def stored_form(product: Product) -> Form | None:
    """How the checkpoint holds a product's weight, if that can be taken over (see `taken_over`)."""
    return form_in_file(product.weight) if product.weight.transposed else None


def _stored(weight: StreamedWeight) -> Callable[[], Made]:
    return lambda: as_stored(weight)


def _rounded(rounding: Rounding, bits: int) -> Callable[[], Made]:
    def made() -> Made:
        for part in some_rows(rounding.product.weight):
            weights = rounding.weights(part)
            yield weights, rounding.blocks(weights, bits)

    return made


def _multiply(
    graph: ir.Graph, product: Product, matrix: BlockMatrix, sums: dict[ir.Value, ir.Value]
) -> None:
    """Replace a product by the one with packed weights; `sums` are of the blocks of activations,
    each made once."""
    inputs, outputs = product.weight.shape.numpy()
    new = ir.node(
        "MatMulNBits",
        [product.source, initializer(graph, matrix), initializer(graph, matrix.scales)],
        attributes={
            "K": inputs,
            "N": outputs,
            "bits": matrix.form.bits,
            "block_size": matrix.form.block,
            "accuracy_level": ACCURACY_LEVEL,
        },
        domain=DOMAIN,
        outputs=[_like(product.result)],
    )
    if matrix.offsets is None:
        _replace(graph, product.node, [new], product.name)
        return
    if product.source not in sums:
        sums[product.source] = _block_sums(graph, product.source, inputs, matrix.form.block)
    offsets = initializer(graph, matrix.offsets)
    more = node("MatMul", [sums[product.source], offsets], shape=product.result.shape)
    both = node("Add", [new.outputs[0], more.outputs[0]], shape=product.result.shape)
    _replace(graph, product.node, [new, more, both], product.name)


def _block_sums(graph: ir.Graph, source: ir.Value, inputs: int, block: int) -> ir.Value:
    """The sum over each block of an activation [batch, T, inputs]: [batch, T, blocks]."""
    apart = constant(graph, f"blocks_of_{inputs}", np.array([0, 0, inputs // block, block]))
    axis = constant(graph, "int_-1", np.array([-1]))
    lead = [None, None] if source.shape is None else list(source.shape[:2])
    cut = node("Reshape", [source, apart], shape=[*lead, inputs // block, block])
    total = node("ReduceSum", [cut.outputs[0], axis], shape=[*lead, inputs // block], keepdims=0)
    producer = source.producer()
    assert producer is not None
    graph.insert_after(producer, [cut, total])
    return total.outputs[0]


def _look_up(model: ir.Model) -> Requantized:
    """Look tokens up in a quantised table."""
    graph, lookup = model.graph, embedding(model)
    assert lookup.inputs[0] is not None
    weight = lookup.inputs[0].const_value
    assert isinstance(weight, StreamedWeight)
    form = None if weight.transposed else form_in_file(weight)
    if form is None or form.offset:  # a lookup has no room for one
        return quantize_embedding(model)
    table = BlockTable(weight, form, _stored(weight))
    table.taken_over = True
    new = ir.node(
        "GatherBlockQuantized",
        [initializer(graph, table), lookup.inputs[1], initializer(graph, table.scales)],
        attributes={
            "bits": table.form.bits,
            "block_size": table.form.block,
            "gather_axis": 0,
            "quantize_axis": 1,
        },
        domain=DOMAIN,
        outputs=[_like(lookup.outputs[0])],
    )
    _replace(graph, lookup, [new], weight.name or "")
    return table


def _like(value: ir.Value) -> ir.Value:
    """A float32 value of the same shape."""
    return ir.Value(type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)


def _replace(graph: ir.Graph, old: ir.Node, new: list[ir.Node], weight: str) -> None:
    """Put nodes, the last of which makes the result, in the place of another, whose weight nobody
    reads any more."""
    graph.insert_after(old, new)
    old.outputs[0].replace_all_uses_with(new[-1].outputs[0])
    graph.remove(old, safe=True)
    graph.initializers.pop(weight, None)
