"""TensorRT engines, without ONNX Runtime: `cuda-python` for memory, TensorRT for the rest.

Not run yet: no machine with the library was at hand. What could be checked without it is said in
docs/tensorrt.md.
"""

from __future__ import annotations

import mmap
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trimexport_runtime import cuda, tensorrt_library
from trimexport_runtime.backends import PROVIDERS, checked
from trimexport_runtime.bundle import Engine, Manifest, Profile, Variant
from trimexport_runtime.errors import BackendError, IntegrityError
from trimexport_runtime.profiles import fitting, most_rows

if TYPE_CHECKING:
    import tensorrt as trt

_REBUILD = "build it again here with `trimexport-run build-engines {bundle}`"


class TensorrtBackend:
    """A `Backend` over one execution context; batches take turns."""

    provider = PROVIDERS["tensorrt"]

    def __init__(
        self,
        engine: trt.ICudaEngine,
        profiles: tuple[Profile, ...],
        labels: int,
        budget: int | None,
    ) -> None:
        self._engine = engine  # it must outlive its context
        self._context = engine.create_execution_context()
        if self._context is None:
            raise BackendError("TensorRT has no room for the engine; free some of the GPU's memory")
        self._profiles = profiles
        self._profile = -1
        self._labels = labels
        self._budget = budget
        self._stream = cuda.Stream()
        self._buffers = {name: cuda.Buffer() for name in ("input_ids", "attention_mask", "logits")}
        self._turn = threading.Lock()

    @classmethod
    def load(
        cls, bundle: Path, manifest: Manifest, variant: Variant, budget: int | None
    ) -> TensorrtBackend:
        """Open the variant's engine: see `load_backend`.

        Raises:
            IntegrityError: the engine's file is not there.
            BackendError: no TensorRT or GPU, an engine for others than these, or of another graph.
        """
        tensorrt_library.load()
        engine = variant.engine
        assert engine is not None, "choose() takes care of it"
        require_fitting(bundle, manifest, engine, tensorrt_library.version(), cuda.gpu())
        loaded = _deserialise(bundle, engine)
        return cls(loaded, engine.profiles, len(manifest.labels), budget)

    def most_rows(self, width: int) -> int:
        """How many rows of a width the engine's profiles take: see `Backend.most_rows`."""
        rows = most_rows(self._profiles, width)
        return rows if self._budget is None else min(rows, max(1, self._budget // width))

    def run(
        self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Logits of a batch, float32 `[batch, labels]`: see `Backend.run`."""
        rows, width = input_ids.shape
        profile = fitting(self._profiles, rows, width)
        if profile is None:
            raise BackendError(
                f"the engine takes no batch of {rows} x {width} tokens; give fewer or shorter texts"
            )
        logits = np.empty((rows, self._labels), dtype=np.float32)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        with self._turn:
            self._switch_to(profile)
            for name, array in inputs.items():
                self._feed(name, cuda.contiguous(array))
            self._buffers["logits"].hold(logits.nbytes)
            self._context.set_tensor_address("logits", self._buffers["logits"].address)
            if not self._context.execute_async_v3(self._stream.handle):
                raise BackendError(f"TensorRT failed on a batch of {rows} x {width} tokens")
            self._stream.download(self._buffers["logits"], logits)
            self._stream.wait()
        return checked(logits, rows, self._labels)

    def _switch_to(self, profile: int) -> None:
        if profile == self._profile:
            return
        if not self._context.set_optimization_profile_async(profile, self._stream.handle):
            raise BackendError(f"the engine has no profile {profile}; build it again")
        self._profile = profile

    def _feed(self, name: str, array: npt.NDArray[np.int64]) -> None:
        buffer = self._buffers[name]
        self._stream.upload(array, buffer)
        if not self._context.set_input_shape(name, tuple(array.shape)):
            raise BackendError(f"the engine takes no {name} of shape {list(array.shape)}")
        self._context.set_tensor_address(name, buffer.address)


def require_fitting(
    bundle: Path, manifest: Manifest, engine: Engine, version: str, gpu: cuda.Gpu
) -> None:
    """Refuse an engine that is not for this TensorRT, this GPU and the bundle's present graph.

    Raises:
        BackendError: saying what differs and how to build it again.
    """
    differences = []
    if engine.tensorrt != version:
        differences.append(f"for TensorRT {engine.tensorrt}, this is {version}")
    if engine.compute_capability != gpu.compute_capability:
        differences.append(
            f"for compute capability {engine.compute_capability} ({engine.gpu}), this is "
            f"{gpu.compute_capability} ({gpu.name})"
        )
    files = {entry.path: entry.sha256 for entry in manifest.files}
    if any(files.get(path) != sha256 for path, sha256 in engine.built_from.items()):
        differences.append("of a graph that was changed since")
    if differences:
        rebuild = _REBUILD.format(bundle=bundle)
        raise BackendError(f"{engine.file} is {' and '.join(differences)}; {rebuild}")


def _deserialise(bundle: Path, engine: Engine) -> trt.ICudaEngine:
    """Read the engine; its file is mapped, not copied."""
    import tensorrt

    path = bundle / engine.file
    if not path.is_file():
        raise IntegrityError(f"{path} is missing from the bundle; copy it again or rebuild it")
    log, errors = tensorrt_library.make_log()
    runtime = tensorrt.Runtime(log)
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as plan:
        loaded = runtime.deserialize_cuda_engine(plan)
    if loaded is None:
        raise BackendError(
            f"TensorRT cannot read {path} ({tensorrt_library.reason(errors)}); "
            + _REBUILD.format(bundle=bundle)
        )
    return loaded
