"""Tensors in GGUF files: rows of blocks, each of some quantised numbers with their scale.

A block never crosses the end of a row, so rows can be read and dequantised a few at a time. The
`gguf` library knows the blocks. Data are read with plain reads, as in `tensor_files`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from trimexport.errors import CheckpointError

from .json_file import unreadable
from .tensor_files import TensorEntry, read_bytes

_CHUNK = 2**22  # bytes that are dequantised at once, which takes some ten times their room


@dataclass(frozen=True)
class GgufEntry(TensorEntry):
    """Where a parameter's numbers lie in a GGUF file, and what llama.cpp's conversion did to them.

    `dtype` is ggml's name for the type, `shape` the parameter's own.

    Args:
        head: rows of an attention head whose two halves were interleaved for the rotary embedding;
            0 where they are in transformers' order.
        transposed: the file has rows for columns.
        added: what was added to each number.
    """

    head: int = 0
    transposed: bool = False
    added: float = 0.0


@dataclass(frozen=True)
class BlockForm:
    """How ggml stores a type: so many `numbers` in a block of so many `bytes`."""

    name: str
    numbers: int
    bytes: int


def readable_forms(file: Path) -> Mapping[int, BlockForm]:
    """The types that can be dequantised, by ggml's number for them.

    Raises:
        CheckpointError: the `gguf` library is not installed; `file` is what it was needed for.
    """
    try:
        return _forms()
    except ImportError as error:
        raise CheckpointError(
            f"{file} is a GGUF file, which needs the gguf library ({error}); install "
            "`trimexport[gguf]`"
        ) from None


def read_gguf_entry(
    entry: GgufEntry, name: str, start: int = 0, stop: int | None = None
) -> torch.Tensor:
    """A parameter in float32 as transformers would have it, or its rows `start` to `stop`.

    Raises:
        CheckpointError: the file is gone or ends early.
    """
    rows = entry.shape[0]
    stop = rows if stop is None else min(stop, rows)
    if entry.transposed:
        found = np.empty((stop - start, entry.shape[1]), np.float32)
        for first, last, block in _stored(entry, name, 0, entry.shape[1]):
            found[:, first:last] = block[:, start:stop].T
    else:
        found = _rows(entry, name, start, stop)
    if entry.added:
        found -= np.float32(entry.added)
    return torch.from_numpy(found)


def read_gguf_rows(entry: GgufEntry, name: str, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """The bytes of a matrix's rows `start` to `stop` in transformers' order, uint8 [rows, bytes];
    not of one that is transposed.

    Raises:
        CheckpointError: the file is gone or ends early.
    """
    head = entry.head or 1
    first, last = start // head * head, -(-stop // head) * head
    parts = [raw for _, _, raw in _stored_bytes(entry, name, first, last)]
    return np.concatenate(parts)[_places(entry, start, stop) - first]


def _rows(entry: GgufEntry, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
    """Rows in transformers' order; those of whole heads are read where llama.cpp has another."""
    if len(entry.shape) == 1:  # which is one row
        ((_, _, whole),) = _stored(entry, name, 0, 1)
        return np.ascontiguousarray(whole[0, _places(entry, start, stop)])
    head = entry.head or 1
    first, last = start // head * head, -(-stop // head) * head
    found = np.empty((last - first, entry.shape[1]), np.float32)
    for begin, end, block in _stored(entry, name, first, last):
        found[begin - first : end - first] = block
    if entry.head:
        found = found[_places(entry, start, stop) - first]
    return found


def _places(entry: GgufEntry, start: int, stop: int) -> npt.NDArray[np.int64]:
    """Where the file has rows `start` to `stop`. llama.cpp turns neighbours by one angle, and
    transformers a row of a head's first half and one of its second."""
    rows = np.arange(start, stop)
    if not entry.head:
        return rows
    half = entry.head // 2
    place = rows % entry.head
    return rows - place + place % half * 2 + place // half


def _stored(
    entry: GgufEntry, name: str, start: int, stop: int
) -> Iterator[tuple[int, int, npt.NDArray[np.float32]]]:
    """Rows `start` to `stop` as the file has them, some at a time: their first and last, and the
    numbers, float32 [rows, columns]."""
    import gguf

    kind = gguf.GGMLQuantizationType[entry.dtype]
    for first, last, raw in _stored_bytes(entry, name, start, stop):
        yield first, last, gguf.dequantize(raw, kind)


def _stored_bytes(
    entry: GgufEntry, name: str, start: int, stop: int
) -> Iterator[tuple[int, int, npt.NDArray[np.uint8]]]:
    """The same rows in bytes, uint8 [rows, bytes]."""
    shape = entry.shape[::-1] if entry.transposed else entry.shape
    width = entry.bytes // (shape[0] if len(shape) > 1 else 1)
    step = max(1, _CHUNK // width)
    with _open(entry) as stream:
        for first in range(start, stop, step):
            last = min(first + step, stop)
            stream.seek(entry.offset + first * width)
            raw = read_bytes(stream, (last - first) * width, entry, name)
            yield first, last, np.frombuffer(raw, np.uint8).reshape(last - first, width)


def _open(entry: TensorEntry) -> BinaryIO:
    try:
        return entry.file.open("rb", buffering=0)
    except OSError as error:
        raise unreadable(entry.file, error) from None


@functools.cache
def _forms() -> dict[int, BlockForm]:
    """What the library dequantises, which is told by asking it to."""
    import gguf

    found = {}
    for kind, (numbers, size) in gguf.GGML_QUANT_SIZES.items():
        try:
            gguf.dequantize(np.zeros((1, size), np.uint8), kind)
        except NotImplementedError:
            continue
        found[int(kind)] = BlockForm(kind.name, numbers, size)
    return found
