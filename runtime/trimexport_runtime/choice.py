"""Which variant of a bundle runs here when none is named."""

from __future__ import annotations

from .backends import CPU_PROVIDER
from .bundle import Manifest, Variant

FASTEST_FIRST = ("int8", "int4", "fp32", "fp16")
"""Precisions as a CPU runs them: int8 has the fastest products, int4 reads the fewest bytes, and
fp16 is computed in float32 on most."""


def choose(manifest: Manifest, name: str | None = None) -> Variant:
    """The variant called `name`; without a name the fastest of those that can run here, and of a
    bundle that has none of these its first.

    Raises:
        BundleError: the bundle holds no such variant.
    """
    runnable = [v for v in manifest.variants if not v.providers or CPU_PROVIDER in v.providers]
    if name is not None or not runnable:
        return manifest.variant(name)
    return min(runnable, key=_rank)


def _rank(variant: Variant) -> int:
    known = variant.precision in FASTEST_FIRST
    return FASTEST_FIRST.index(variant.precision) if known else len(FASTEST_FIRST)
