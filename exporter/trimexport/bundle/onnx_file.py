"""Write a bound graph as `.onnx` with its weights streaming into one external data file.

ONNX external data: each large tensor is a range of bytes in a file beside the graph
(https://onnx.ai/onnx/repo-docs/ExternalData.html). Ranges begin at multiples of the page size,
so that a runtime can map them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from trimexport.errors import ExportError
from trimexport.graph.nodes import require
from trimexport.graph.streamed_weights import StreamedTensor

ALIGNMENT = 4096
INLINE_BYTES = 4096
# Replacing a head must not mean rewriting the weights, so it stays in the graph's own file.
ALWAYS_INLINE = ("head.",)


def external_bytes(model: ir.Model) -> int:
    """How many bytes of the graph's tensors will go to the external data file."""
    return sum(value.nbytes for _, value in _external(model))


@dataclass
class Written:
    """Streamed tensors that a variant of the same bundle wrote already, by name and type."""

    tensors: dict[tuple[str, ir.DataType], ir.ExternalTensor] = field(default_factory=dict)


def write_onnx(
    model: ir.Model,
    graph: Path,
    data: Path,
    progress: Callable[[int], None] = lambda done: None,
    written: Written | None = None,
) -> str:
    """Write `graph` and, beside it, `data`; check the result; return the SHA-256 of `data`.

    Requires a bound model; afterwards its large tensors refer to `data`.

    Args:
        progress: called with the number of bytes of `data` written since the last call.
        written: what earlier variants wrote, to which this one refers instead of writing it
            again; learns what this one writes.

    Raises:
        ExportError: the ONNX checker finds the written graph invalid.
        OSError: disk full and the like.
    """
    written = written or Written()
    digest = hashlib.sha256()
    with data.open("wb") as stream:
        for value, tensor in list(_external(model)):
            key = (value.name or "", tensor.dtype)
            streamed = isinstance(tensor, StreamedTensor)
            if streamed and key in written.tensors:
                value.const_value = written.tensors[key]
                progress(tensor.nbytes)
                continue
            value.const_value = _write_tensor(tensor, key[0], stream, digest, progress)
            if streamed:
                written.tensors[key] = value.const_value
    common.ClearMetadataAndDocStringPass()(model)
    ir.save(model, graph)
    try:
        onnx.checker.check_model(str(graph))
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error
    return digest.hexdigest()


def _write_tensor(
    tensor: ir.TensorProtocol,
    name: str,
    stream: BinaryIO,
    digest: hashlib._Hash,
    progress: Callable[[int], None],
) -> ir.ExternalTensor:
    """Append a tensor to the data file, a block at a time."""
    offset = _pad(stream, digest)
    length = 0
    for block in _blocks(tensor):
        raw = memoryview(np.ascontiguousarray(block)).cast("B")  # type: ignore[arg-type]
        stream.write(raw)
        digest.update(raw)
        length += len(raw)
        progress(len(raw))
    path = Path(stream.name)
    return ir.ExternalTensor(
        location=path.name,
        offset=offset,
        length=length,
        dtype=tensor.dtype,
        shape=tensor.shape,  # type: ignore[arg-type]
        name=name,
        base_dir=path.parent,
    )


def _external(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """The initializers that go to the data file, in the graph's order."""
    for name, value in model.graph.initializers.items():
        tensor = require(value.const_value, f"the numbers of {name}")
        if tensor.nbytes >= INLINE_BYTES and not name.startswith(ALWAYS_INLINE):
            yield value, tensor


def _blocks(tensor: ir.TensorProtocol) -> Iterator[np.ndarray]:
    if isinstance(tensor, StreamedTensor):
        yield from tensor.blocks()
    else:
        yield tensor.numpy()


def _pad(stream: BinaryIO, digest: hashlib._Hash) -> int:
    """Fill up to the next aligned offset and return it."""
    gap = bytes(-stream.tell() % ALIGNMENT)
    stream.write(gap)
    digest.update(gap)
    return stream.tell()
