"""The codes and scales of which GGUF blocks are made, where a number is a scale times a code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .gguf_blocks import GgufEntry, read_gguf_rows

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CodeForm:
    """How a type's codes can be held: in so many `bits` (4 or 8), around the middle of what these
    can tell, with a scale for each `block` of numbers. `scales` gets float32 [..., scales] out of
    ggml's blocks of `size` bytes, uint8 [..., size]."""

    bits: int
    block: int
    size: int
    scales: Callable[[Bytes], Floats]


def _first_half(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks[..., :2]).view(np.float16).astype(np.float32)


def _sixteen(blocks: Bytes) -> Floats:
    whole = np.ascontiguousarray(blocks[..., 208:]).view(np.float16).astype(np.float32)
    return whole * np.ascontiguousarray(blocks[..., 192:208]).view(np.int8).astype(np.float32)


FORMS: Mapping[str, CodeForm] = {
    "Q4_0": CodeForm(4, 32, 18, _first_half),
    "Q5_0": CodeForm(8, 32, 22, _first_half),
    "Q8_0": CodeForm(8, 32, 34, _first_half),
    "Q6_K": CodeForm(8, 16, 210, _sixteen),
}
"""ggml's types whose numbers are scale times code. Those with a minimum besides (Q4_1, Q4_K) are
none of them."""


def read_codes(entry: GgufEntry, name: str, start: int, stop: int) -> tuple[Floats, Bytes, Floats]:
    """Rows of a matrix in one of FORMS, which is not transposed: the numbers float32 [rows,
    columns], their codes uint8 [rows, blocks, block] and scales float32 [rows, blocks].

    Raises:
        CheckpointError: the file is gone or ends early.
    """
    import gguf

    form = FORMS[entry.dtype]
    raw = read_gguf_rows(entry, name, start, stop)
    numbers = gguf.dequantize(raw, gguf.GGMLQuantizationType[entry.dtype])
    scales = form.scales(raw.reshape(len(raw), -1, form.size)).reshape(len(raw), -1)
    # A number over its scale is the code that the library multiplied with, but for the last bit.
    each = np.where(scales == 0, 1, scales)[..., None]
    codes = np.rint(numbers.reshape(*scales.shape, form.block) / each) + 2 ** (form.bits - 1)
    return numbers, codes.astype(np.uint8), scales
