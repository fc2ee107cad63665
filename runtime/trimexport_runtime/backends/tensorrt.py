"""TensorRT engines, without ONNX Runtime: `cuda-python` for memory, TensorRT for the rest.

Not run with TensorRT's library yet: docs/tensorrt.md says what was checked without it.
"""

from __future__ import annotations

import mmap
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trimexport_runtime import cuda, tensorrt_library
from trimexport_runtime.backends import PROVIDERS, checked_logits
from trimexport_runtime.batching import rows_within
from trimexport_runtime.bundle import OUTPUT, Engine, Manifest, Profile, Variant
from trimexport_runtime.errors import BackendError
from trimexport_runtime.integrity import check_engine
from trimexport_runtime.profiles import most_rows, profile_index

if TYPE_CHECKING:
    import tensorrt as trt

_REBUILD = "build it again here with `trimexport-run build-engines {bundle}`"


class TensorrtBackend:
    """A `Backend` over one execution context; batches take turns."""

    provider = PROVIDERS["tensorrt"]

    def __init__(
        self,
        engine: trt.ICudaEngine,
        errors: list[str],
        profiles: tuple[Profile, ...],
        outputs: int,
        budget: int | None,
    ) -> None:
        self._engine = engine  # it must outlive its context
        self._errors = errors
        self._context = tensorrt_library.make(
            "execution context", lambda: engine.create_execution_context(), errors
        )
        self._profiles = profiles
        self._profile = -1
        self._outputs = outputs
        self._within = None if budget is None else rows_within(budget)
        self._stream = cuda.Stream()
        self._buffers = {name: cuda.Buffer() for name in ("input_ids", "attention_mask", OUTPUT)}
        self._turn = threading.Lock()

    @classmethod
    def load(
        cls, bundle: Path, manifest: Manifest, variant: Variant, budget: int | None
    ) -> TensorrtBackend:
        """Open the variant's engine: see `load_backend`.

        Raises:
            IntegrityError: the engine's file is missing, or is not the one of the manifest.
            BackendError: there is no TensorRT or no GPU, or the engine is for others than these, or
                of another graph.
        """
        tensorrt_library.load()
        engine = variant.engine
        assert engine is not None, "choose() takes care of it"
        require_fitting(bundle, manifest, engine, tensorrt_library.version(), cuda.gpu())
        check_engine(bundle, engine, hashes=False)
        loaded, errors = _deserialise(bundle, engine)
        return cls(loaded, errors, engine.profiles, manifest.outputs, budget)

    def most_rows(self, width: int) -> int:
        """How many rows of a width the engine's profiles take: see `Backend.most_rows`."""
        rows = most_rows(self._profiles, width)
        return rows if self._within is None else min(rows, self._within(width))

    def run(
        self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Logits of a batch, float32 `[batch, outputs]`: see `Backend.run`."""
        rows, width = input_ids.shape
        profile = profile_index(self._profiles, rows, width)
        if profile is None:
            raise BackendError(
                f"the engine takes no batch of {rows} x {width} tokens; give fewer or shorter texts"
            )
        logits = np.empty((rows, self._outputs), dtype=np.float32)
        inputs = {
            "input_ids": cuda.contiguous(input_ids),
            "attention_mask": cuda.contiguous(attention_mask),
        }
        with self._turn:
            try:
                self._execute(profile, inputs, logits)
            finally:
                self._stream.wait()  # the arrays are read and written until then
        return checked_logits(logits, rows, self._outputs)

    def _execute(
        self,
        profile: int,
        inputs: dict[str, npt.NDArray[np.int64]],
        logits: npt.NDArray[np.float32],
    ) -> None:
        """Queue a batch on the stream: its copies to the GPU, its execution, and the copy back."""
        self._errors.clear()
        context, stream = self._context, self._stream
        if profile != self._profile:
            self._require(context.set_optimization_profile_async(profile, stream.handle), "profile")
            self._profile = profile
        for name, array in inputs.items():
            stream.upload(array, self._buffers[name])
            shape = tuple(array.shape)
            self._require(context.set_input_shape(name, shape), f"{name} of shape {list(shape)}")
        self._buffers[OUTPUT].hold(logits.nbytes)
        for name, buffer in self._buffers.items():
            self._require(context.set_tensor_address(name, buffer.address), f"address of {name}")
        self._require(context.execute_async_v3(stream.handle), f"batch {list(logits.shape)}")
        stream.download(self._buffers[OUTPUT], logits)

    def _require(self, done: bool, what: str) -> None:
        if not done:
            raise BackendError(
                f"TensorRT refuses the {what} ({tensorrt_library.reason(self._errors)}); check the "
                "GPU's free memory, or build the engine again"
            )


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


def _deserialise(bundle: Path, engine: Engine) -> tuple[trt.ICudaEngine, list[str]]:
    """Read the engine, whose file is mapped and not copied.

    Returns:
        The engine, and the list into which its errors are logged.
    """
    import tensorrt

    path = bundle / engine.file
    log, errors = tensorrt_library.make_log()
    runtime = tensorrt_library.make("runtime", lambda: tensorrt.Runtime(log), errors)
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as plan:
        loaded = runtime.deserialize_cuda_engine(plan)
    if loaded is None:
        raise BackendError(
            f"TensorRT cannot read {path} ({tensorrt_library.reason(errors)}); "
            + _REBUILD.format(bundle=bundle)
        )
    return loaded, errors
