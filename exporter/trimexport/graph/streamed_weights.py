"""Values for the traced graph: tensors that are read from the checkpoint when they are written.

A traced graph names its initializers after the module's parameters. Each gets a value that knows
where its numbers are (`StreamedWeight`), or, for the few that no checkpoint holds, the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch._subclasses import FakeTensor

from trimexport.source.checkpoint import Checkpoint

from .nodes import require

# A block of a large tensor that is in memory while it streams to the bundle.
BLOCK_BYTES = 64 * 2**20


class StreamedTensor(ir.LazyTensor):
    """A tensor that is made a block at a time, when it is written."""

    def __init__(self, dtype: ir.DataType, shape: Sequence[int], name: str) -> None:
        super().__init__(
            lambda: ir.tensor(np.concatenate(list(self.blocks())), name=name, dtype=dtype),
            dtype=dtype,
            shape=ir.Shape(shape),
            name=name,
        )

    def blocks(self) -> Iterator[np.ndarray]:
        """The tensor's bytes in order, as arrays of some rows each."""
        raise NotImplementedError


class StreamedWeight(StreamedTensor):
    """A float32 tensor that lies in the checkpoint, possibly transposed on its way out."""

    def __init__(self, checkpoint: Checkpoint, source: str, transposed: bool, name: str) -> None:
        shape = checkpoint.tensors[source].shape
        super().__init__(ir.DataType.FLOAT, shape[::-1] if transposed else shape, name)
        self.checkpoint = checkpoint
        self.source = source
        self.transposed = transposed

    def transpose(self, name: str) -> StreamedWeight:
        """The same tensor with its two dimensions exchanged."""
        return StreamedWeight(self.checkpoint, self.source, not self.transposed, name)

    def stored(self) -> Iterator[torch.Tensor]:
        """The tensor as the checkpoint holds it, some rows at a time, float32."""
        shape = self.checkpoint.tensors[self.source].shape
        rows = shape[0] if shape else 1
        row_bytes = 4 * int(np.prod(shape[1:], dtype=np.int64))
        step = max(1, BLOCK_BYTES // max(row_bytes, 1))
        for start in range(0, rows, step):
            yield self.checkpoint.read(self.source, start, start + step)

    def blocks(self) -> Iterator[np.ndarray]:
        """The tensor in order, some rows at a time; a transposed one is one block."""
        if not self.transposed:
            yield from (block.numpy() for block in self.stored())
        else:
            blocks = (block.numpy() for block in self.stored())
            yield turned(blocks, self.shape.numpy(), np.float32)


def turned(blocks: Iterable[np.ndarray], shape: Sequence[int], dtype: npt.DTypeLike) -> np.ndarray:
    """A matrix [rows, columns] from blocks of its columns, each [some, rows]."""
    whole = np.empty(shape, dtype=dtype)
    done = 0
    for block in blocks:
        # PyTorch turns a block faster than NumPy writes across rows.
        whole[:, done : done + len(block)] = torch.from_numpy(block).T.contiguous().numpy()
        done += len(block)
    return whole


@dataclass(frozen=True)
class Bindings:
    """Where each parameter or buffer of the traced module gets its value.

    `streamed`: initializer name -> tensor of the checkpoint; `values`: initializer name -> numbers.
    """

    streamed: Mapping[str, str]
    values: Mapping[str, torch.Tensor]


def bind(model: ir.Model, bindings: Bindings, checkpoint: Checkpoint) -> None:
    """Give every initializer of the traced graph its value.

    Raises:
        ExportError: an initializer that is neither in the checkpoint nor known by value.
    """
    for name, value in model.graph.initializers.items():
        if name in bindings.streamed:
            value.const_value = StreamedWeight(checkpoint, bindings.streamed[name], False, name)
        elif name in bindings.values:
            value.const_value = _as_ir(bindings.values[name], name)
        else:
            unknown = f"the numbers of {name}, which the checkpoint does not hold either"
            value.const_value = _as_ir(require(_traced_constant(value), unknown), name)


def _as_ir(tensor: torch.Tensor, name: str) -> ir.TensorProtocol:
    return ir.tensor(tensor.detach().contiguous().numpy(), name=name)


def _traced_constant(value: ir.Value) -> torch.Tensor | None:
    """The numbers of a tensor that the model's forward writes itself (Gemma's embedding scale in
    transformers 4), or None where the tracer only saw a fake."""
    raw = getattr(value.const_value, "raw", None)
    if isinstance(raw, FakeTensor):
        return raw.constant
    return raw if isinstance(raw, torch.Tensor) else None
