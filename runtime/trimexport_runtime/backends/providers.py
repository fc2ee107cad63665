"""ONNX Runtime's execution providers: whether one is here, whether it started, and whether it runs
what it should."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import onnxruntime as ort

from trimexport_runtime.backends import CPU_PROVIDER, PROVIDERS
from trimexport_runtime.errors import BackendError

TENSORRT_PROVIDER = PROVIDERS["onnxruntime-tensorrt"]
# What a provider must compute itself, or it is not used: the products with the weights.
_PRODUCTS = frozenset(
    ("MatMul", "Gemm", "FusedMatMul", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits")
)


def require_provider(provider: str) -> None:
    """Look whether this build of ONNX Runtime has a provider.

    Raises:
        BackendError: it has not; what to install.
    """
    if provider in ort.get_available_providers():
        return
    from importlib.metadata import PackageNotFoundError, distribution  # slow to import

    try:
        distribution("onnxruntime-gpu")
    except PackageNotFoundError:
        hint = "install `trimexport-runtime[gpu]`"
    else:
        hint = (
            "onnxruntime-gpu is installed and the onnxruntime for CPUs lies over it, since both "
            "have the same files: `pip install --force-reinstall --no-deps onnxruntime-gpu`"
        )
    raise BackendError(f"ONNX Runtime {ort.__version__} here has no {provider}; {hint}")


def check_where_it_runs(session: Any, provider: str, path: Path, said: str) -> None:
    """Refuse a session that went on without `provider`, or leaves the weights to another one.

    Raises:
        BackendError: why it did, `said` if that is not empty, or which products are elsewhere.
    """
    got = session.get_providers()
    if not got or got[0] != provider:
        raise not_started(provider, said or f"it chose {', '.join(got)} for {path}")
    if provider == CPU_PROVIDER:
        return
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise BackendError(
            f"ONNX Runtime {ort.__version__} does not tell which provider runs what, so it could "
            "use the CPU unseen; upgrade onnxruntime-gpu"
        )
    elsewhere = misplaced(session.get_provider_graph_assignment_info(), provider)
    if elsewhere:
        raise BackendError(
            f"{provider} does not run {', '.join(sorted(elsewhere))} of {path}, which would run "
            "on another device; use another variant, or another backend"
        )


def misplaced(assignment: Any, provider: str) -> set[str]:
    """The products that others than `provider` would compute, by their operators."""
    return {
        node.op_type
        for part in assignment
        for node in part.get_nodes()
        if part.ep_name != provider and node.op_type in _PRODUCTS
    }


def not_started(provider: str, reason: str) -> BackendError:
    """What to say of a provider that did not start."""
    return BackendError(
        f"{provider} did not start ({reason}); it needs an NVIDIA GPU with its driver, and the "
        f"CUDA{' and TensorRT' * ('Tensorrt' in provider)} libraries that ONNX Runtime "
        f"{ort.__version__} was built for: `trimexport-runtime[gpu]` brings those of CUDA"
    )


def preload_libraries(provider: str) -> str:
    """Load the libraries that came as Python packages; return what failed of CUDA's, in one
    line."""
    if provider == TENSORRT_PROVIDER:
        with contextlib.suppress(ImportError, OSError):  # the session says what it lacks
            import tensorrt  # noqa: F401
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        ort.preload_dlls()
    lines = said.getvalue().strip().splitlines()
    return lines[0] if lines else ""
