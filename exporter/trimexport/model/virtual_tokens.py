"""The beginning of every prompt, read by the untrimmed model: virtual tokens that were trained, and
the ids behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from trimexport.source.trained_prompt import TrainedPrompt


def read_first(
    model: Any, body: Any, trained: TrainedPrompt | None, ids: Sequence[int], cache: DynamicCache
) -> torch.Tensor:
    """Read ids that stand at the very beginning, behind virtual tokens alone.

    Trained embeddings take the place of the model's own as peft has them do: where transformers
    scales the output of the embedding's layer, they are not scaled.

    Args:
        body: the model's decoder.
        cache: an empty one, which takes every layer's keys and values, virtual tokens' included.

    Returns:
        The hidden states after the final norm, float32 [1, T, hidden]; their last is that of the
        last id. There are none where nothing is read.
    """
    given = torch.tensor([list(ids)], dtype=torch.int64)
    if trained is None or trained.has_keys:
        kept = [] if trained is None else trained.keys_and_values()
        for layer, (keys, values) in enumerate(kept):
            cache.update(keys, values, layer)
        if not ids:
            return torch.empty(1, 0, model.config.hidden_size)
        output = body(input_ids=given, past_key_values=cache, use_cache=True)
    else:
        own = model.get_input_embeddings()(given)
        embeddings = torch.cat([trained.embeddings(), own], 1)
        output = body(inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
    return output.last_hidden_state  # type: ignore[no-any-return]
