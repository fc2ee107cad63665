"""The choice of the variant that runs on a backend."""

from __future__ import annotations

from collections.abc import Mapping

from .backbone_manifest import BackboneManifest
from .backends import DEFAULT, PROVIDERS
from .bundle import Manifest, Variant
from .errors import BackendError
from .manifest import variant_of

FASTEST_FIRST: Mapping[str, tuple[str, ...]] = {
    DEFAULT: ("int8", "int4", "fp32", "fp16"),
    "onnxruntime-cuda": ("fp16", "tensorrt-fp16"),
    "onnxruntime-tensorrt": ("tensorrt-int8", "tensorrt-fp16"),
    "tensorrt": ("tensorrt-int8", "tensorrt-fp16"),
}
"""The precisions that a backend runs, the fastest first. On a CPU int8 has the fastest products,
int4 reads the fewest bytes, and most compute fp16 in float32."""


def choose(
    manifest: Manifest | BackboneManifest, name: str | None = None, backend: str = DEFAULT
) -> Variant:
    """The variant called `name`; without a name the fastest of those that can run on `backend`.

    Raises:
        BundleError: the bundle, or the backbone, holds no such variant.
        BackendError: there is no such backend, or the variant, or every variant, cannot run on it.
    """
    if backend not in PROVIDERS:
        raise BackendError(f'there is no backend "{backend}"; use one of: {", ".join(PROVIDERS)}')
    runnable = [variant for variant in manifest.variants if runs(variant, backend)]
    whose = "bundle" if isinstance(manifest, Manifest) else "backbone"
    if name is not None:
        variant = variant_of(manifest.variants, name, whose)
        if variant not in runnable:
            raise BackendError(f"{_needs(variant, backend)}; {_remedy(runnable, backend)}")
        return variant
    if not runnable:
        names = ", ".join(variant.name for variant in manifest.variants)
        raise BackendError(
            f"the {whose}'s variants ({names}) do not run on {PROVIDERS[backend]}; "
            + _remedy(runnable, backend)
        )
    order = FASTEST_FIRST[backend]
    places = {precision: place for place, precision in enumerate(order)}
    return min(runnable, key=lambda variant: places.get(variant.precision, len(order)))


def runs(variant: Variant, backend: str) -> bool:
    """Whether a variant is made for a backend."""
    if backend == "tensorrt":
        return variant.engine is not None
    return not variant.providers or PROVIDERS[backend] in variant.providers


def _needs(variant: Variant, backend: str) -> str:
    if backend == "tensorrt":
        return f'variant "{variant.name}" has no TensorRT engine'
    needs = ", ".join(variant.providers)
    return f'variant "{variant.name}" needs {needs}, this backend is {PROVIDERS[backend]}'


def _remedy(runnable: list[Variant], backend: str) -> str:
    if runnable:
        return f"use one of: {', '.join(variant.name for variant in runnable)}"
    return {
        DEFAULT: "build one that runs on the CPU",
        "onnxruntime-cuda": "build one with `trimexport build --precision fp16`",
        "onnxruntime-tensorrt": "build one with `trimexport build --tensorrt fp16`",
        "tensorrt": "build its engines here with `trimexport-run build-engines BUNDLE`, if it has "
        "variants for TensorRT (`trimexport build --tensorrt fp16 --tensorrt-onnx-only`)",
    }[backend]
