"""Tensors in safetensors files (https://github.com/huggingface/safetensors#format): eight bytes of
header length, a JSON header, raw little-endian data.

The `safetensors` library checks each file. The data are then read with plain reads instead of a
memory map, so that pages that were read do not count as memory of the process.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from trimexport.errors import CheckpointError

from .json_file import unreadable

_LAYERS = ("num_hidden_layers", "n_layer")
_WIDTHS = ("hidden_size", "head_dim", "n_embd", "n_positions")
_DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_DAMAGED = "download it again, or take a state of the model from before its training diverged"


@dataclass(frozen=True)
class TensorEntry:
    """The place of a tensor: its file, its safetensors dtype, its shape, and its offset in the file
    and its size, both in bytes."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


def read_header(file: Path) -> dict[str, TensorEntry]:
    """The places of the tensors in a safetensors file, by name.

    Raises:
        CheckpointError: the file is missing, may not be read, or is damaged.
    """
    try:
        with file.open("rb") as stream:  # first, for it says why it cannot
            with safe_open(file, framework="pt"):  # checks header, offsets and size
                pass
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
    except (FileNotFoundError, PermissionError) as error:
        raise unreadable(file, error) from None
    except (SafetensorError, OSError, ValueError, struct.error) as error:
        raise CheckpointError(
            f"{file} is truncated or damaged ({error}); download it again"
        ) from None
    entries = {}
    for name, item in header.items():
        if name == "__metadata__":
            continue
        begin, end = item["data_offsets"]
        shape = tuple(item["shape"])
        entries[name] = TensorEntry(file, item["dtype"], shape, 8 + length + begin, end - begin)
    return entries


def check_sizes(raw: Mapping[str, Any], entries: Mapping[str, TensorEntry], place: Path) -> None:
    """Refuse a configuration of a far larger model than the tensors are of. transformers makes its
    layers, and tables for the rotary angles, before it would come to light.

    Args:
        raw: config.json, or what a GGUF file has instead.
        entries: all tensors of the checkpoint, of which every layer has one at least.
        place: the checkpoint, for messages.

    Raises:
        CheckpointError: there are more layers than tensors, or a width is beyond every tensor's.
    """
    widest = max((size for entry in entries.values() for size in entry.shape), default=0)
    layers, widths = dict.fromkeys(_LAYERS, len(entries)), dict.fromkeys(_WIDTHS, widest)
    inner = raw.get("text_config")
    for part in (raw, inner if isinstance(inner, dict) else {}):
        for key, most in (layers | widths).items():
            value = part.get(key)
            if isinstance(value, int) and value > most:
                raise CheckpointError(
                    f"the configuration of {place} says {key} {value:,}, and its "
                    f"{len(entries):,} tensors have {most:,} at most; the two do not belong "
                    "together, so take both from one download"
                )


def read_entry(
    entry: TensorEntry, name: str, start: int = 0, stop: int | None = None
) -> torch.Tensor:
    """The rows `start` to `stop` of a tensor in float32, or all of them.

    Args:
        name: the tensor's name, for messages.

    Raises:
        CheckpointError: the file is gone or ends early, or its dtype is not supported.
    """
    rows = entry.shape[0] if entry.shape else 1
    stop = rows if stop is None else min(stop, rows)
    width = entry.bytes // max(rows, 1)
    shape = (stop - start, *entry.shape[1:]) if entry.shape else ()
    try:
        with entry.file.open("rb", buffering=0) as stream:
            stream.seek(entry.offset + start * width)
            return _read_tensor(stream, (stop - start) * width, shape, entry, name)
    except OSError as error:
        raise unreadable(entry.file, error) from None


def check_dtype(name: str, entry: TensorEntry) -> None:
    """Raise CheckpointError unless the tensor's dtype can be read."""
    if entry.dtype not in _DTYPES:
        raise CheckpointError(
            f"tensor {name} of {entry.file} is {entry.dtype}; {', '.join(_DTYPES)} can be read "
            "(a checkpoint that is quantised already has to be dequantised first)"
        )


def require_finite(
    block: torch.Tensor, name: str, entry: TensorEntry, start: int = 0, advice: str = _DAMAGED
) -> None:
    """Refuse NaN and infinity, which no later stage could make sense of.

    Args:
        block: rows of the tensor `name`, float32, of which the first is its row `start`.
        advice: what to do about it.

    Raises:
        CheckpointError: a number of the block is not finite; it names the tensor and the place.
    """
    # Where one number is not finite the sum is not either, and a sum is one fast pass. It may also
    # overflow, so only numbers themselves are evidence.
    if math.isfinite(float(block.sum())):
        return
    wrong = torch.isfinite(block).logical_not_()
    count = int(wrong.sum())
    if not count:
        return
    place = [] if block.dim() == 0 else wrong.nonzero()[0].tolist()
    found = float(block[tuple(place)])
    where = f" at {[start + place[0], *place[1:]]}" if place else ""
    more = f", one of {count:,} that are not" if count > 1 else ""
    what = "NaN" if math.isnan(found) else f"{found:+}"
    raise CheckpointError(
        f"tensor {name} of {entry.file} holds {what}{where}, which is no finite number{more}; "
        f"{advice}"
    )


def _read_tensor(
    stream: Any, size: int, shape: tuple[int, ...], entry: TensorEntry, name: str
) -> torch.Tensor:
    """Read `size` bytes as a float32 tensor."""
    check_dtype(name, entry)
    buffer = read_bytes(stream, size, entry, name)
    if not size:
        return torch.empty(shape, dtype=torch.float32)
    tensor = torch.frombuffer(buffer, dtype=_DTYPES[entry.dtype]).reshape(shape)
    return tensor.to(torch.float32)


def read_bytes(stream: Any, size: int, entry: TensorEntry, name: str) -> bytearray:
    """The next `size` bytes of the tensor's file.

    Raises:
        CheckpointError: it ends before.
    """
    buffer = bytearray(size)
    view, done = memoryview(buffer), 0
    while done < size:
        count = stream.readinto(view[done:])
        if not count:
            raise CheckpointError(f"{entry.file} ends inside tensor {name}; download it again")
        done += count
    return buffer
