"""The codes, scales and minima of which GGUF blocks are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from .gguf_blocks import GgufEntry, read_gguf_rows
from .tensor_files import require_finite

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CodeForm:
    """How a type's codes can be held: in so many `bits` (4 or 8), with a scale for each `block` of
    numbers. `scales` gets float32 [..., scales] out of ggml's blocks of `size` bytes, uint8 [...,
    size]. A number is scale * (code - 2 ** (bits - 1)), and where ggml has `minima`, plus an
    offset: the minimum and as many scales as the `middle` of ggml's own codes, which are counted
    from there, so that they are small.
    """

    bits: int
    block: int
    size: int
    scales: Callable[[Bytes], Floats]
    minima: Callable[[Bytes], Floats] | None = None
    middle: int = 0


@dataclass(frozen=True)
class Codes:
    """Rows of a matrix: its numbers float32 [rows, columns], their codes uint8 [rows, blocks,
    block], the scales and, where there are minima, the offsets, float32 [rows, blocks]."""

    numbers: Floats
    codes: Bytes
    scales: Floats
    offsets: Floats | None


def _half(blocks: Bytes, at: int) -> Floats:
    """The float16 at a byte of each block, float32 [..., 1]."""
    return np.ascontiguousarray(blocks[..., at : at + 2]).view(np.float16).astype(np.float32)


def _sixteen(blocks: Bytes) -> Floats:
    each = np.ascontiguousarray(blocks[..., 192:208]).view(np.int8)
    return _half(blocks, 208) * each.astype(np.float32)


def _eight(blocks: Bytes, place: int) -> Floats:
    """The scales or the minima of a K-quant, of which each is six bits times a float16."""
    from gguf.quants import Q4_K

    packed = np.ascontiguousarray(blocks[..., 4:16])
    each = Q4_K.get_scale_min(packed.reshape(-1, 12))[place].reshape(*blocks.shape[:-1], 8)
    return _half(blocks, 2 * place) * each.astype(np.float32)


FORMS: Mapping[str, CodeForm] = {
    "Q4_0": CodeForm(4, 32, 18, partial(_half, at=0)),
    "Q4_1": CodeForm(4, 32, 20, partial(_half, at=0), partial(_half, at=2), 8),
    "Q4_K": CodeForm(4, 32, 144, partial(_eight, place=0), lambda raw: -_eight(raw, 1), 8),
    "Q5_0": CodeForm(8, 32, 22, partial(_half, at=0)),
    "Q5_1": CodeForm(8, 32, 24, partial(_half, at=0), partial(_half, at=2), 16),
    "Q5_K": CodeForm(8, 32, 176, partial(_eight, place=0), lambda raw: -_eight(raw, 1), 16),
    "Q6_K": CodeForm(8, 16, 210, _sixteen),
    "Q8_0": CodeForm(8, 32, 34, partial(_half, at=0)),
}
"""By ggml's names of types."""


def read_codes(entry: GgufEntry, name: str, start: int, stop: int) -> Codes:
    """Rows of a matrix in one of FORMS, which is not transposed.

    Raises:
        CheckpointError: the file is gone or ends early, or a number is not finite.
    """
    import gguf

    form = FORMS[entry.dtype]
    raw = read_gguf_rows(entry, name, start, stop)
    numbers = gguf.dequantize(raw, gguf.GGMLQuantizationType[entry.dtype])
    require_finite(torch.from_numpy(numbers), name, entry, start)
    blocks = raw.reshape(len(raw), -1, form.size)
    scales = form.scales(blocks).reshape(len(raw), -1)
    over = numbers.reshape(*scales.shape, form.block)
    offsets = None
    if form.minima is not None:
        minima = form.minima(blocks).reshape(len(raw), -1)
        over, offsets = over - minima[..., None], minima + form.middle * scales
    # Over its scale a number is the code that the library multiplied with, but for the last bits.
    codes = np.rint(over / np.where(scales == 0, 1, scales)[..., None])
    stored = (codes - form.middle + 2 ** (form.bits - 1)).astype(np.uint8)
    return Codes(numbers, stored, scales, offsets)
