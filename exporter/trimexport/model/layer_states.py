"""What a head would read behind each of a model's layers, out of one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from trimexport.source.empty_model import final_norm_of, layers_of

from .layerwise import LayerwiseModel
from .shared_prefix import common_prefix
from .streamed import passes


@torch.no_grad()
def layer_states(
    model: LayerwiseModel,
    sequences: Sequence[Sequence[int]],
    progress: Callable[[int], None] = lambda done: None,
) -> torch.Tensor:
    """The states of sequences behind each layer and the final norm: float32 [layers, n, hidden],
    the last of which are `model.hidden_states`.

    Args:
        sequences: whole prompts as token ids, none of them empty.
        progress: called with the number of sequences done since the last call.
    """
    layers, norm = layers_of(model.body), final_norm_of(model.body)
    shared = common_prefix(sequences)[: model.mean_behind]
    cache = model.read_prefix(shared)
    rests = [sequence[len(shared) :] for sequence in sequences]
    states = torch.empty(len(layers), len(rests), model.checkpoint.config.hidden_size)
    found: list[torch.Tensor] = []

    def keep(_layer: Any, _given: Any, out: Any) -> None:
        hidden = out[0] if isinstance(out, tuple) else out
        found.append(model.pooled(norm(hidden), len(shared)))

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        for group in passes(rests):
            found.clear()
            model.states_behind([rests[place] for place in group], cache)
            states[:, group] = torch.stack(found)
            progress(len(group))
    finally:
        for hook in hooks:
            hook.remove()
    return states
