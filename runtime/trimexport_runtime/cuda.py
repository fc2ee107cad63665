"""The part of CUDA that a TensorRT engine needs, through `cuda-python`: what GPU there is, memory
on it, copies, and a stream."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import BackendError

_MISSING = (
    "cuda-python is not installed, which a TensorRT engine needs; install "
    "`trimexport-runtime[tensorrt]`"
)


@dataclass(frozen=True)
class Gpu:
    """The first GPU: its name and compute capability, such as 8.9."""

    name: str
    compute_capability: str


def gpu() -> Gpu:
    """The first GPU.

    Raises:
        BackendError: there is no GPU, no driver, or no `cuda-python`.
    """
    cuda = _runtime()
    properties = _value(cuda.cudaGetDeviceProperties(0))
    name = bytes(properties.name).rstrip(b"\0").decode(errors="replace")
    return Gpu(name, f"{properties.major}.{properties.minor}")


class Stream:
    """A stream of work on the first GPU. `handle` is its address, as TensorRT wants it.

    Copies may still be under way when a method returns: arrays must live until `wait` has.
    """

    def __init__(self) -> None:
        self._cuda = _runtime()
        self._stream = _value(self._cuda.cudaStreamCreate())
        self.handle = int(self._stream)
        weakref.finalize(self, self._cuda.cudaStreamDestroy, self._stream)

    def upload(self, array: npt.NDArray[Any], buffer: Buffer) -> None:
        """Copy a contiguous array to the GPU, into a buffer that grows to hold it."""
        buffer.hold(array.nbytes)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(buffer.address, array.ctypes.data, array.nbytes, kind)

    def download(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy from the GPU into a contiguous array."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(array.ctypes.data, buffer.address, array.nbytes, kind)

    def wait(self) -> None:
        """Wait until all work on the stream is done."""
        _value(self._cuda.cudaStreamSynchronize(self._stream))

    def _copy(self, target: int, source: int, count: int, kind: Any) -> None:
        _value(self._cuda.cudaMemcpyAsync(target, source, count, kind, self._stream))


class Buffer:
    """Memory on the first GPU, which grows as it must and is freed with the object."""

    def __init__(self) -> None:
        self._cuda = _runtime()
        self._size = 0
        self._free: weakref.finalize[[int], Buffer] | None = None
        self.address = 0

    def hold(self, size: int) -> None:
        """Make room for `size` bytes; what the buffer held may be lost."""
        if size <= self._size:
            return
        if self._free is not None:
            self._free()
            self.address = self._size = 0
        self.address = int(_value(self._cuda.cudaMalloc(size)))
        self._free = weakref.finalize(self, self._cuda.cudaFree, self.address)
        self._size = size


def contiguous(array: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The array in contiguous memory, as copies need it."""
    return np.ascontiguousarray(array, dtype=np.int64)


def _runtime() -> Any:
    """CUDA's runtime API, `cuda.bindings.runtime`."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        raise BackendError(_MISSING) from None
    return runtime


def _value(result: tuple[Any, ...]) -> Any:
    """The value of a call of CUDA's, whose result is a status with or without a value.

    Raises:
        BackendError: the status says that it failed.
    """
    status, *values = result
    if int(status) != 0:
        cuda = _runtime()
        _, text = cuda.cudaGetErrorString(status)
        raise BackendError(
            f"CUDA says: {text.decode(errors='replace')} ({status.name}); check the GPU and its "
            "driver with nvidia-smi"
        )
    return values[0] if values else None
