"""int4: weights in blocks along the inputs, with a scale and a zero point each; activations stay
float32 in the graph.

    y[t, n] = sum_k x[t, k] * scale[n, k // BLOCK] * (codes[n, k] - zero[n, k // BLOCK])

The product is ONNX Runtime's own `MatMulNBits`; the embedding is that of `int8`.

How the constants were chosen (ONNX Runtime 1.31, two cores with AVX-512 VNNI). Error is that of
gemma-mini's weights, agreement its label agreement with fp32 on SST-2's 1,821 test texts and 1,500
of AG News, all without smoothing:

    block  zero points  shares  bits   error   SST-2    AG News
    32     yes          5       5.125  0.081   99.67 %  99.93 %
    32     yes          1       5.125  0.083   99.29 %  99.93 %
    32     no           5       5      0.087   99.51 %  99.73 %
    64     yes          5       4.56   0.091   99.34 %  99.40 %
    128    yes          5       4.28   0.098   98.74 %  99.07 %
    128    no           5       4.25   0.100   98.85 %  99.40 %

Accuracy level 4 multiplies in int8, with a scale for each block of an activation. It cost no
agreement (99.67 / 99.93 % against 99.73 / 99.93 % at levels 0 and 1, which compute in float32) and
is twice as fast for one row: 2048 x 16384 took about 4 / 38 / 940 ms for 1 / 27 / 768 rows against
8 / 36 / 620. With blocks of 32 its results do not depend on the other rows of a batch, bit by bit;
with 64 or 128 they do, and so do those of levels 0 and 1 where a row comes alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch.nn.functional import pad

from trimexport.graph.nodes import initializer
from trimexport.graph.streamed_weights import StreamedTensor, StreamedWeight

from .int8 import Factors, quantize_embedding
from .matrices import Error, Product, Requantized, products, rows

BLOCK = 32
LEVELS = 15
ACCURACY_LEVEL = 4
DOMAIN = "com.microsoft"
# Shares of a block's range that are tried; what lies outside of the best one is clipped.
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8)
# The least scale: a block of zeros has none, and is quantised with this one.
LEAST = 1e-30
# Numbers that are quantised at a time, which keeps what is made on the way small.
STEP = 2**20


@dataclass(frozen=True)
class Blocks:
    """Rows in blocks: codes uint8 [n, blocks, BLOCK] in [0, 15]; scales float32 and zero points
    uint8 [n, blocks]; and the sum of the squared errors."""

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor
    wrong: float


def quantize_blocks(part: torch.Tensor) -> Blocks:
    """Rows float32 [n, inputs], which are filled up with zeros to whole blocks."""
    values = pad(part, (0, -part.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    low = values.amin(2, keepdim=True).clamp(max=0)
    whole = (values.amax(2, keepdim=True).clamp(min=0) - low).clamp(min=LEAST * LEVELS)
    zeros = torch.round(-low / whole * LEVELS)
    best = torch.full_like(low, torch.inf)
    codes, scales = torch.empty_like(values), torch.empty_like(low)
    for share in SHARES:
        scale = whole * (share / LEVELS)
        tried = torch.round(values / scale).add_(zeros).clamp_(0, LEVELS)
        wrong = ((tried - zeros) * scale - values).square().sum(2, keepdim=True)
        better = wrong < best
        codes = torch.where(better, tried, codes)
        scales = torch.where(better, scale, scales)
        best = torch.where(better, wrong, best)
    return Blocks(
        codes.to(torch.uint8), scales[..., 0], zeros[..., 0].to(torch.uint8), float(best.sum())
    )


def pack(codes: torch.Tensor) -> torch.Tensor:
    """Codes uint8 [..., n] -> two in a byte [..., (n + 1) / 2], the first in the lower half."""
    even = pad(codes, (0, codes.shape[-1] % 2))
    return even[..., ::2] | (even[..., 1::2] << 4)


class Int4Matrix(Requantized):
    """A quantised matrix as the graph multiplies with it: uint8 [outputs, blocks, BLOCK / 2]."""

    def __init__(self, weight: StreamedWeight, factors: Factors) -> None:
        inputs, outputs = weight.shape.numpy()
        blocks = -(-inputs // BLOCK)
        name = f"{weight.name}.int4"
        super().__init__(ir.DataType.UINT8, (outputs, blocks, BLOCK // 2), name)
        self._weight = weight
        self._factors = factors
        self.scales = _Companion(self, ir.DataType.FLOAT, outputs * blocks, f"{name}.scale")
        zeros = outputs * -(-blocks // 2)
        self.zeros = _Companion(self, ir.DataType.UINT8, zeros, f"{name}.zero")

    def blocks(self) -> Iterator[np.ndarray]:
        self.scales.made, self.zeros.made = [], []
        error = Error()
        done = 0
        for stored in rows(self._weight):
            for some in stored.split(max(1, STEP // stored.shape[1])):
                part = self._factors.apply(some, done)
                done += len(part)
                found = quantize_blocks(part)
                self.scales.made.append(found.scales.flatten().numpy())
                self.zeros.made.append(pack(found.zeros).flatten().numpy())
                error.add(part, found.wrong)
                yield pack(found.codes).numpy()
        self.error = error.relative()


class _Companion(StreamedTensor):
    """A matrix's scales or zero points. They are made with its codes and kept until they are
    written, after it; so it is read once, and one matrix's are in memory at a time."""

    def __init__(self, matrix: Int4Matrix, dtype: ir.DataType, size: int, name: str) -> None:
        super().__init__(dtype, (size,), name)
        self._matrix = matrix
        self.made: list[np.ndarray] = []

    def blocks(self) -> Iterator[np.ndarray]:
        if not self.made:
            for _ in self._matrix.blocks():
                pass
        made, self.made = self.made, []
        yield from made


def to_int4(model: ir.Model, factors: Mapping[str, Factors]) -> list[Requantized]:
    """Quantise every streamed matrix of a graph to int4, and the embedding to int8, in place;
    return both.

    Args:
        factors: weight name -> smoothing (see `smooth`).
    """
    tensors: list[Requantized] = []
    for product in products(model):
        matrix = Int4Matrix(product.weight, factors.get(product.name, Factors()))
        tensors.append(matrix)
        _multiply(model.graph, product, matrix)
    model.opset_imports[DOMAIN] = 1
    return [*tensors, quantize_embedding(model)]


def _multiply(graph: ir.Graph, product: Product, matrix: Int4Matrix) -> None:
    """Replace a product by the one with packed weights."""
    old = product.node
    inputs, outputs = product.weight.shape.numpy()
    stored = [initializer(graph, it) for it in (matrix, matrix.scales, matrix.zeros)]
    result = ir.Value(type=ir.TensorType(ir.DataType.FLOAT), shape=product.result.shape)
    new = ir.node(
        "MatMulNBits",
        [product.source, *stored],
        attributes={
            "K": inputs,
            "N": outputs,
            "bits": 4,
            "block_size": BLOCK,
            "accuracy_level": ACCURACY_LEVEL,
        },
        domain=DOMAIN,
        outputs=[result],
    )
    graph.insert_after(old, new)
    product.result.replace_all_uses_with(result)
    graph.remove(old, safe=True)
    graph.initializers.pop(product.name, None)
