"""The backends that run a variant's graph. Each is a module, which is loaded when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trimexport_runtime.bundle import Manifest, Variant
from trimexport_runtime.errors import BackendError

CPU_PROVIDER = "CPUExecutionProvider"
DEFAULT = "onnxruntime"
PROVIDERS: Mapping[str, str] = {
    DEFAULT: CPU_PROVIDER,
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "tensorrt": "TensorRT",
}
"""What computes for each backend: an execution provider of ONNX Runtime, or TensorRT itself, which
runs an engine that was built beforehand."""


class Backend(Protocol):
    """A loaded variant. `provider` says what computes, a value of `PROVIDERS`."""

    @property
    def provider(self) -> str: ...

    def most_rows(self, width: int) -> int:
        """How many rows of `width` tokens one batch may have here, at least 1."""
        ...

    def run(
        self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Logits of a batch. May be called from several threads at once.

        Args:
            input_ids: int64 `[batch, sequence]`, both at least 1.
            attention_mask: int64 `[batch, sequence]`, 1 at the texts' own tokens.

        Returns:
            float32 `[batch, outputs]`, which a variant that cannot answer a row leaves without
            finite numbers there.

        Raises:
            BackendError: the batch cannot be run here.
        """
        ...


def load_backend(
    name: str,
    bundle: Path,
    manifest: Manifest,
    variant: Variant,
    *,
    threads: int | None,
    token_budget: int | None,
    spin: bool = True,
    begun: Callable[[], None] | None = None,
) -> Backend:
    """Load a variant on the backend called `name`, a key of `PROVIDERS`.

    Args:
        threads: how many threads one batch may use; None leaves it to the backend.
        token_budget: the most tokens, padding included, of one batch; None is what is fast.
        spin: whether ONNX Runtime's threads wait for each other at full speed.
        begun: as in `open_graph`; not called for TensorRT's engines.

    Raises:
        BackendError: the backend is not here, or the variant cannot run on it.
        BundleError: its files are not what they should be.
    """
    # Imported here, so that reading a manifest or printing a help text loads none of them.
    if name == "tensorrt":
        from .tensorrt import TensorrtBackend

        return TensorrtBackend.load(bundle, manifest, variant, token_budget)
    from .onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend.load(
        bundle, manifest, variant, name, threads, token_budget, spin, begun
    )


def check_runs_packs(backend: str) -> None:
    """Refuse a backend for task packs that runs whole bundles alone.

    Raises:
        BackendError: what to use.
    """
    if "tensorrt" in backend:
        raise BackendError(
            f"packs do not run with {backend}, whose engines are built for one task; use "
            "onnxruntime or onnxruntime-cuda, or make a bundle of backbone and pack with "
            "`trimexport bundle` and run that"
        )


def checked_logits(
    logits: npt.NDArray[np.float32], rows: int, outputs: int
) -> npt.NDArray[np.float32]:
    """`logits`, if they have the right shape. Those of a row may be no finite numbers: see
    `Classifier.predictions`.

    Raises:
        BackendError: they have not.
    """
    if logits.shape != (rows, outputs):
        raise BackendError(
            f"the graph gave logits of shape {list(logits.shape)}, the manifest needs "
            f"{[rows, outputs]}; build the bundle again"
        )
    return logits
