"""The backends that could run a bundle here, and why others could not.

No model is loaded to find out: whether a provider of ONNX Runtime starts is seen when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimexport_runtime import cuda, tensorrt_library
from trimexport_runtime.backbone_manifest import BackboneManifest, is_backbone
from trimexport_runtime.backends import PROVIDERS, check_runs_packs
from trimexport_runtime.backends.tensorrt import require_fitting
from trimexport_runtime.bundle import Manifest
from trimexport_runtime.choice import choose
from trimexport_runtime.errors import BackendError


@dataclass(frozen=True)
class Availability:
    """A backend: the variant that it would run, or the reason why it runs none."""

    backend: str
    provider: str
    variant: str | None
    reason: str | None


def describe_backends(
    bundle: Path, manifest: Manifest | BackboneManifest
) -> tuple[Availability, ...]:
    """The availability of every backend, in the order of `PROVIDERS`; for a backbone that of those
    that run packs on it."""
    return tuple(_describe(bundle, manifest, backend) for backend in PROVIDERS)


def _describe(bundle: Path, manifest: Manifest | BackboneManifest, backend: str) -> Availability:
    provider = PROVIDERS[backend]
    try:
        if is_backbone(bundle):
            check_runs_packs(backend)
        require_backend(backend)
        variant = choose(manifest, backend=backend)
        if isinstance(manifest, Manifest) and backend == "tensorrt" and variant.engine is not None:
            version, gpu = tensorrt_library.version(), cuda.gpu()
            require_fitting(bundle, manifest, variant.engine, version, gpu)
    except BackendError as error:
        return Availability(backend, provider, None, str(error))
    return Availability(backend, provider, variant.name, None)


def require_backend(backend: str) -> None:
    """Look for a backend's libraries, and for TensorRT's own for a GPU.

    Raises:
        BackendError: something is missing; it says what to install.
    """
    if backend == "tensorrt":
        from trimexport_runtime.engine import require_builder

        require_builder()
    else:
        from trimexport_runtime.backends.providers import require_provider

        require_provider(PROVIDERS[backend])
