"""int8: symmetric weights with a scale per output channel, activations with one per token.

    y[t, n] = row_scale[t] * channel_scale[n] * sum_k (codes[t, k] - 128) * weight[k, n]

Codes are uint8 around a zero point of 128 and weights int8, because ONNX Runtime's kernels for
that pair use VNNI and AMX. Everything is written in standard operators; ONNX Runtime fuses
MatMulInteger, Cast and Mul to one `MatMulIntegerToFloat` by itself, but only where the Mul's other
operand is a Mul too, and it folds that one away where both its operands are constants. Hence
`unit`, a one that is computed from the input's shape.

A token's scale depends on the token alone, and integers add up to the same in any order, so a
text's answer never depends on its batch. Weights are rounded so that no processor's sums overflow,
and so that later inputs make up for the errors of earlier ones (see `paired_rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from trimexport.graph.nodes import constant, initializer, node
from trimexport.graph.streamed_weights import StreamedTensor, StreamedWeight, turned

from .hadamard import Turn, turned_rows
from .matrices import Error, Product, Requantized, embedding, products, some_rows
from .paired_rows import LEAST, LEVELS, Rows, compensated_rows, nearest_rows
from .second_moments import SecondMoments

ZERO_POINT = 128


@dataclass(frozen=True)
class Factors:
    """What a matrix is multiplied with before it is quantised: float32 [inputs] and [outputs]; and
    how its rows are turned after that, if they are (see `rotation`)."""

    inputs: torch.Tensor | None = None
    outputs: torch.Tensor | None = None
    turn: Turn | None = None

    def apply(self, part: torch.Tensor, start: int) -> torch.Tensor:
        """Scale and turn rows [some, inputs], the first of which is output channel `start`."""
        if self.inputs is not None:
            part = part * self.inputs
        if self.outputs is not None:
            part = part * self.outputs[start : start + len(part), None]
        return part if self.turn is None else turned_rows(part, self.turn)

    def undo(self, activation: torch.Tensor) -> torch.Tensor:
        """What the matrix reads then, for activations float32 [..., inputs] of the model."""
        if self.inputs is not None:
            activation = activation / self.inputs
        return activation if self.turn is None else turned_rows(activation, self.turn)


def quantize_rows(part: torch.Tensor, scale_type: ir.DataType = ir.DataType.FLOAT) -> Rows:
    """Rows float32 [n, inputs] -> codes int8 [n, inputs] in [-127, 127], the nearest, and scales
    float32 [n], which are numbers of `scale_type`. For weights that are not multiplied as codes."""
    scale = part.abs().amax(1) / LEVELS
    if scale_type == ir.DataType.FLOAT16:
        scale = half_scale(scale)
    scale = scale.clamp(min=LEAST)
    return torch.round(part / scale[:, None]).clamp(-LEVELS, LEVELS).to(torch.int8), scale


def half_scale(scale: torch.Tensor) -> torch.Tensor:
    """Scales float32 as float16 holds them with all its digits."""
    limits = torch.finfo(torch.float16)
    return scale.clamp(limits.smallest_normal, limits.max).half().float()


class _Int8Tensor(Requantized):
    """Codes that a weight becomes, with a scale for each output channel or token. `scales` float32
    [channels] are known once it has streamed by. `rounded` makes the codes and scales of rows."""

    def __init__(
        self,
        weight: StreamedWeight,
        factors: Factors,
        rounded: Callable[[torch.Tensor], Rows],
        scale_type: ir.DataType = ir.DataType.FLOAT,
        suffix: str = "int8",
    ) -> None:
        super().__init__(ir.DataType.INT8, weight.shape.numpy(), f"{weight.name}.{suffix}")
        self.scale_type = scale_type
        self._weight = weight
        self._factors = factors
        self._rounded = rounded
        self.scales: np.ndarray | None = None

    def _codes(self, parts: Iterable[torch.Tensor]) -> Iterator[np.ndarray]:
        """int8 [some, inputs] for rows [some, inputs]."""
        error = Error()
        scales: list[np.ndarray] = []
        done = 0
        for stored in parts:
            part = self._factors.apply(stored, done)
            codes, scale = self._rounded(part)
            error.add(part, part - codes * scale[:, None])
            scales.append(scale.numpy())
            done += len(part)
            yield codes.numpy()
        self.scales, self.error = np.concatenate(scales), error.relative()


class Int8Matrix(_Int8Tensor):
    """A quantised matrix as the graph multiplies with it: int8 [inputs, outputs], in one block."""

    def blocks(self) -> Iterator[np.ndarray]:
        yield turned(self._codes(some_rows(self._weight)), self.shape.numpy(), np.int8)


class Int8Table(_Int8Tensor):
    """A quantised embedding: int8 [tokens, hidden], with a scale per token."""

    def blocks(self) -> Iterator[np.ndarray]:
        yield from self._codes(self._weight.stored())


class Scales(StreamedTensor):
    """The scales of a quantised tensor; written after it, they need no second reading."""

    def __init__(self, codes: _Int8Tensor, shape: tuple[int, ...], name: str) -> None:
        super().__init__(codes.scale_type, shape, name)
        self._codes = codes

    def blocks(self) -> Iterator[np.ndarray]:
        if self._codes.scales is None:
            for _ in self._codes.blocks():
                pass
        assert self._codes.scales is not None
        scales = self._codes.scales.reshape(self.shape.numpy())
        yield scales.astype(self.dtype.numpy(), copy=False)


def to_int8(
    model: ir.Model, factors: Mapping[str, Factors], moments: SecondMoments | None = None
) -> list[Requantized]:
    """Quantise every streamed matrix of a graph, and the embedding, in place; return both.

    Args:
        factors: weight name -> smoothing and rotation (see `smooth` and `rotate`).
        moments: of what the matrices read on calibration texts, smoothed and rotated. Without, and
            where the texts did not reach a matrix, each weight is rounded by itself.
    """
    tensors: list[Requantized] = []
    inputs = _Inputs(model.graph)
    for product in products(model):
        rounded = _rounding(product, moments)
        codes = Int8Matrix(product.weight, factors.get(product.name, Factors()), rounded)
        tensors.append(codes)
        _multiply(model.graph, product, codes, inputs)
    model.graph.sort()  # zero points stand where they were first needed
    return [*tensors, quantize_embedding(model)]


def _rounding(product: Product, moments: SecondMoments | None) -> Callable[[torch.Tensor], Rows]:
    if moments is None or not moments.has(product.parameter):
        return nearest_rows
    return lambda part: compensated_rows(part, moments.factors(product.parameter))


class _Inputs:
    """Activations as codes and scales, each quantised once for all products that read it."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._known: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self._zeros: dict[object, ir.Value] = {}
        self.zero = constant(graph, "zero_point", np.array(ZERO_POINT, dtype=np.uint8))
        self.unit = _unit(graph)

    def codes(self, source: ir.Value, inputs: int) -> tuple[ir.Value, ir.Value]:
        """Codes uint8 [..., inputs] and scales float32 [..., 1] of an activation."""
        if source not in self._known:
            self._known[source] = self._quantize(source, inputs)
        return self._known[source]

    def _quantize(self, source: ir.Value, inputs: int) -> tuple[ir.Value, ir.Value]:
        graph = self._graph
        axis = constant(graph, "int_-1", np.array([-1]))
        each = None if source.shape is None else [*source.shape[:-1], 1]
        high = node("ReduceMax", [source, axis], shape=each, keepdims=1)
        low = node("ReduceMin", [source, axis], shape=each, keepdims=1)
        negated = node("Neg", [low.outputs[0]], shape=each)
        least = constant(graph, "least_row", np.array(LEAST * LEVELS, dtype=np.float32))
        size = node("Max", [high.outputs[0], negated.outputs[0], least], shape=each)
        levels = constant(graph, "one_level", np.array(1 / LEVELS, dtype=np.float32))
        scale = node("Mul", [size.outputs[0], levels], shape=each)
        producer = source.producer()
        assert producer is not None
        graph.insert_after(producer, [high, low, negated, size, scale])
        codes = node(
            "QuantizeLinear",
            [source, scale.outputs[0], self._zero_points(scale)],
            dtype=ir.DataType.UINT8,
            shape=source.shape,
            axis=-1,
            block_size=inputs,
        )
        graph.insert_after(scale, codes)
        return codes.outputs[0], scale.outputs[0]

    def _zero_points(self, scale: ir.Node) -> ir.Value:
        """Zero points uint8 [..., 1] for scales [..., 1], made once for all of one shape, and anew
        where the shape is not known."""
        result = scale.outputs[0]
        sizes = [None] if result.shape is None else [_size_of(size) for size in result.shape]
        key = result if None in sizes else tuple(sizes)
        if key not in self._zeros:
            shape = node("Shape", [result], dtype=ir.DataType.INT64)
            whole = [self.zero, shape.outputs[0]]
            zero = node("Expand", whole, dtype=ir.DataType.UINT8, shape=result.shape)
            self._graph.insert_after(scale, [shape, zero])
            self._zeros[key] = zero.outputs[0]
        return self._zeros[key]


def _size_of(size: int | ir.SymbolicDim) -> int | str | None:
    """A dimension's size or name, if it has one."""
    return size if isinstance(size, int) else size.value


def _multiply(graph: ir.Graph, product: Product, weight: Int8Matrix, activations: _Inputs) -> None:
    """Replace a product by the integer one and its two scales."""
    old = product.node
    inputs, outputs = weight.shape.numpy()
    codes, row_scale = activations.codes(product.source, inputs)
    stored = initializer(graph, weight)
    scales = initializer(graph, Scales(weight, (outputs,), f"{product.weight.name}.scale"))
    shape = old.outputs[0].shape
    whole = node(
        "MatMulInteger",
        [codes, stored, activations.zero],
        dtype=ir.DataType.INT32,
        shape=shape,
    )
    real = node("Cast", [whole.outputs[0]], shape=shape, to=int(ir.DataType.FLOAT))
    channel = node("Mul", [activations.unit, scales], shape=[outputs])
    scaled = node("Mul", [real.outputs[0], channel.outputs[0]], shape=shape)
    result = node("Mul", [scaled.outputs[0], row_scale], shape=shape)
    graph.insert_after(old, [whole, real, channel, scaled, result])
    old.outputs[0].replace_all_uses_with(result.outputs[0])
    graph.remove(old, safe=True)
    graph.initializers.pop(product.weight.name or "", None)


def quantize_embedding(model: ir.Model) -> Int8Table:
    """Look tokens up in an int8 table, and multiply each row by its scale."""
    graph = model.graph
    lookup = embedding(model)
    assert lookup.inputs[0] is not None
    weight = lookup.inputs[0].const_value
    assert isinstance(weight, StreamedWeight)
    table = Int8Table(weight, Factors(), quantize_rows)
    tokens, hidden = table.shape.numpy()
    stored = initializer(graph, table)
    scales = initializer(graph, Scales(table, (tokens, 1), f"{weight.name}.scale"))
    shape = lookup.outputs[0].shape
    each = None if shape is None else [*shape[:-1], 1]
    codes = node("Gather", [stored, lookup.inputs[1]], dtype=ir.DataType.INT8, shape=shape, axis=0)
    scale = node("Gather", [scales, lookup.inputs[1]], shape=each, axis=0)
    result = node(
        "DequantizeLinear",
        [codes.outputs[0], scale.outputs[0]],
        shape=shape,
        axis=-1,
        block_size=hidden,
    )
    graph.insert_after(lookup, [codes, scale, result])
    lookup.outputs[0].replace_all_uses_with(result.outputs[0])
    graph.remove(lookup, safe=True)
    graph.initializers.pop(weight.name or "", None)
    return table


def _unit(graph: ir.Graph) -> ir.Value:
    """One, float32 [1], that no optimiser can know beforehand: whether the batch is not empty."""
    rows_of = node("Shape", [graph.inputs[0]], dtype=ir.DataType.INT64, shape=[1], start=0, end=1)
    zero = constant(graph, "int_0", np.array([0]))
    some = node("Greater", [rows_of.outputs[0], zero], dtype=ir.DataType.BOOL, shape=[1])
    unit = node("Cast", [some.outputs[0]], shape=[1], to=int(ir.DataType.FLOAT))
    first = graph[0]
    graph.insert_before(first, [rows_of, some, unit])
    return unit.outputs[0]
