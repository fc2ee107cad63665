"""Which backends could run a bundle here, and why others could not. Nothing is loaded for it but
the libraries themselves."""

from __future__ import annotations

from dataclasses import dataclass

from trimexport_runtime.backends import PROVIDERS
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


def look_around(manifest: Manifest) -> tuple[Availability, ...]:
    """Every backend, in the order of `PROVIDERS`."""
    return tuple(_look(manifest, backend) for backend in PROVIDERS)


def _look(manifest: Manifest, backend: str) -> Availability:
    provider = PROVIDERS[backend]
    try:
        require(backend)
        variant = choose(manifest, backend=backend)
    except BackendError as error:
        return Availability(backend, provider, None, str(error))
    return Availability(backend, provider, variant.name, None)


def require(backend: str) -> None:
    """Look for a backend's libraries, and for TensorRT's own for a GPU.

    Raises:
        BackendError: something is missing; it says what to install.
    """
    if backend == "tensorrt":
        from trimexport_runtime.engine import require_builder

        require_builder()
    else:
        from trimexport_runtime.backends.onnxruntime import require_provider

        require_provider(PROVIDERS[backend])
