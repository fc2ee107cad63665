"""A graph's large matrices: where they are multiplied with, and their rows as they stream by.

Rows are output channels here, whichever way a matrix lies in the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir
import torch

from trimexport.graph.streamed_weights import StreamedTensor, StreamedWeight

_LEAST = 1e-30
# Output channels that are rounded at a time. One input after the other is rounded for all of them:
# of 1024 half of the time is the interpreter's, of 4096 hardly any. Many inputs have fewer
# channels at a time, so that no more than NUMBERS weights are in hand.
ROWS = 4096
NUMBERS = 2**24
TRANSPOSED = ".transposed"
"""What the name of a weight ends with that lies the other way round than the parameter it is."""


@dataclass(frozen=True)
class Product:
    """A MatMul of activations [..., inputs] with a weight [inputs, outputs]."""

    node: ir.Node
    weight: StreamedWeight

    @property
    def name(self) -> str:
        """The weight's."""
        return self.weight.name or ""

    @property
    def parameter(self) -> str:
        """The module's parameter that the weight is, whichever way it lies."""
        return self.name.removesuffix(TRANSPOSED)

    @property
    def result(self) -> ir.Value:
        """What the product makes."""
        return self.node.outputs[0]

    @property
    def source(self) -> ir.Value:
        """The activations."""
        value = self.node.inputs[0]
        assert value is not None
        return value


class Requantized(StreamedTensor):
    """A weight in other numbers. `error` is known once it has streamed by: the norm of the
    difference by the norm of the weight (Frobenius). `taken_over`: whether the numbers are those of
    a GGUF file, codes and all."""

    error: float | None = None
    taken_over = False


class Error:
    """Adds up a tensor's error while it streams by."""

    def __init__(self) -> None:
        self._wrong = 0.0
        self._whole = 0.0

    def add(self, part: torch.Tensor, wrong: torch.Tensor) -> None:
        """Note a part of a weight, and what its other form misses."""
        self._wrong += _squares(wrong)
        self._whole += _squares(part)

    def relative(self) -> float:
        """The norm of what is missed by that of the whole."""
        return float((self._wrong / max(self._whole, _LEAST)) ** 0.5)


def _squares(part: torch.Tensor) -> float:
    """The sum of the squares of float32 numbers, which may be beyond float32 itself."""
    total = float(torch.linalg.vector_norm(part))
    total = total if math.isfinite(total) else float(torch.linalg.vector_norm(part.double()))
    return total**2


def products(model: ir.Model) -> list[Product]:
    """Every product with a streamed matrix, in the graph's order."""
    found = []
    for candidate in model.graph:
        if candidate.op_type == "MatMul" and candidate.inputs[1] is not None:
            weight = candidate.inputs[1].const_value
            if isinstance(weight, StreamedWeight) and len(weight.shape) == 2:
                found.append(Product(candidate, weight))
    return found


def embedding(model: ir.Model) -> ir.Node:
    """The Gather that looks tokens up: the one from the table with the most rows."""
    tables = [
        (weight.shape.numpy()[0], place, candidate)
        for place, candidate in enumerate(model.graph)
        if candidate.op_type == "Gather"
        and candidate.inputs[0] is not None
        and isinstance(weight := candidate.inputs[0].const_value, StreamedWeight)
    ]
    return max(tables)[2]


def rows(weight: StreamedWeight) -> Iterator[torch.Tensor]:
    """The matrix's output channels in order, float32 [some, inputs] at a time. One that the
    checkpoint holds the other way round (GPT-2) comes as a whole."""
    if weight.transposed:
        yield from weight.stored()
    else:
        yield torch.cat(list(weight.stored())).T


def some_rows(weight: StreamedWeight) -> Iterator[torch.Tensor]:
    """The same, no more at a time than are rounded together."""
    for part in rows(weight):
        yield from part.split(max(1, min(ROWS, NUMBERS // part.shape[1])))


def sample_rows(weight: StreamedWeight, count: int) -> torch.Tensor:
    """Up to `count` of a matrix's output channels, from all over it, float32 [some, inputs]."""
    outputs = weight.shape.numpy()[1]
    places = torch.linspace(0, outputs - 1, min(count, outputs)).long()
    if weight.transposed:
        return weight.checkpoint.read_rows(weight.source, places.tolist())
    return torch.cat([part[places] for part in rows(weight)])
