"""Which models are supported, and the little that has to be known about each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import UnsupportedError

SUPPORTED = ("GemmaForCausalLM", "LlamaForCausalLM")
# Frequencies that change with the length of the sequence cannot be a constant of the graph.
_DYNAMIC_ROPE = ("dynamic", "longrope")

GEMMA_NOTICE = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms"
)


def check_supported(raw: dict[str, Any], directory: Path) -> str:
    """The architecture that config.json names.

    Raises:
        UnsupportedError: it is not one of `SUPPORTED`, or its rope scaling depends on the length.
    """
    named = raw.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else None
    if architecture not in SUPPORTED:
        what = f"is a {architecture}" if architecture else "names no architecture in config.json"
        raise UnsupportedError(f"{directory} {what}; supported are {', '.join(SUPPORTED)}")
    for key in ("rope_scaling", "rope_parameters"):
        scaling = raw.get(key)
        if not isinstance(scaling, dict):
            continue
        kind = scaling.get("rope_type") or scaling.get("type")
        if kind in _DYNAMIC_ROPE:
            raise UnsupportedError(
                f"{directory} has rope scaling of type {kind!r}, whose frequencies change with the "
                "length of the sequence; a compiled prompt needs fixed ones (default, linear, "
                f"yarn, llama3). Remove {key} from config.json if short texts are enough"
            )
    return architecture


def notice_for(architecture: str, vocab_size: int) -> str | None:
    """The terms that a bundle made from this model has to carry, if any are known.

    Google's Gemma checkpoints are known by their vocabulary of 256,000 tokens or more; a model
    that somebody trained from nothing in Gemma's architecture has none of them.
    """
    is_google = architecture.startswith("Gemma") and vocab_size >= 256_000
    return GEMMA_NOTICE if is_google else None
