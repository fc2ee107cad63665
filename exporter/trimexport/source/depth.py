"""A checkpoint's first layers, as a model of their own.

The middle of a decoder often carries what a classifier needs (arXiv:2412.13435), and what is cut
off costs neither time nor bytes. Behind the last of the layers stands the model's own final norm.
"""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

from transformers import PretrainedConfig

from trimexport.errors import SpecError

from .checkpoint import Checkpoint

_LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")


def cut_layers(checkpoint: Checkpoint, layers: int | None) -> Checkpoint:
    """The checkpoint with its first `layers` layers alone; None leaves it whole.

    Raises:
        SpecError: it has not so many layers, is a fine-tuned classifier, whose output layer reads
            the last one, or has a trained prompt, which was made for all of them.
    """
    if layers is None:
        return checkpoint
    have = int(checkpoint.config.num_hidden_layers)
    if not 1 <= layers <= have:
        raise SpecError(f"{layers} layers of {checkpoint.model} cannot be had; give 1 to {have}")
    if checkpoint.is_classifier:
        raise SpecError(
            f"{checkpoint.model} is a fine-tuned classifier, whose output layer reads the last "
            "layer; drop the number of layers"
        )
    if checkpoint.trained_prompt is not None:
        raise SpecError(
            "a trained prompt was made for all layers; drop the number of layers, or --adapter"
        )
    tensors = {name: entry for name, entry in checkpoint.tensors.items() if _stays(name, layers)}
    return replace(checkpoint, config=_shorter(checkpoint.config, layers, have), tensors=tensors)


def _stays(name: str, layers: int) -> bool:
    """Whether a tensor is of none of the layers that are cut off."""
    found = _LAYER.search(name)
    return found is None or int(found[1]) < layers


def _shorter(config: PretrainedConfig, layers: int, have: int) -> PretrainedConfig:
    """The configuration with so many layers: what it lists for each layer is cut as well."""
    shorter: Any = copy.deepcopy(config)
    for name, value in vars(config).items():
        if isinstance(value, (list, tuple)) and len(value) == have:
            setattr(shorter, name, value[:layers])
    shorter.num_hidden_layers = layers
    return shorter  # type: ignore[no-any-return]
