"""What is fitted or calibrated: a softmax over labels, and no other score."""

from __future__ import annotations

from pathlib import Path

from trimexport.errors import SpecError
from trimexport_runtime import Manifest
from trimexport_runtime.bundle import SOFTMAX


def require_softmax(manifest: Manifest, bundle: Path, remedy: str) -> None:
    """Refuse a bundle whose score is no softmax over labels.

    Args:
        remedy: why only a softmax will do, and what to do instead.

    Raises:
        SpecError: it is another.
    """
    kind = manifest.score.kind
    if kind != SOFTMAX:
        raise SpecError(f"the score of {bundle} is {kind}, no softmax over labels, and {remedy}")
