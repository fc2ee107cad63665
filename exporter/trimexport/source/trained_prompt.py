"""A prompt that was trained: virtual tokens that stand before every prompt and that no vocabulary
has. Prompt tuning (Lester et al. 2021, https://arxiv.org/abs/2104.08691) and P-tuning (Liu et al.
2021, https://arxiv.org/abs/2103.10385) train what the first layer reads of them, prefix tuning (Li
and Liang 2021, https://arxiv.org/abs/2101.00190) what every layer's attention sees of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .tensor_files import TensorEntry, read_entry

EMBEDDINGS = "prompt_embeddings"  # peft's name of the tensor, whatever was trained
PREFIX_TUNING = "PREFIX_TUNING"
TRAINED_PROMPTS = ("PROMPT_TUNING", "P_TUNING", PREFIX_TUNING)


@dataclass(frozen=True)
class TrainedPrompt:
    """The place of what was trained. Holds no weights.

    `kind` is peft's name of the method, one of TRAINED_PROMPTS. `entry` is a tensor [tokens,
    hidden], or [tokens, layers * 2 * kv_heads * head] of prefix tuning, in which each layer's keys
    stand before its values. `layers` and `kv_heads` are the model's.
    """

    kind: str
    entry: TensorEntry
    layers: int
    kv_heads: int

    @property
    def tokens(self) -> int:
        """How many virtual tokens there are."""
        return self.entry.shape[0]

    @property
    def has_keys(self) -> bool:
        """Whether keys and values were trained, and not embeddings."""
        return self.kind == PREFIX_TUNING

    @property
    def tokens_read(self) -> int:
        """How many virtual tokens the layers read: all, or none where they have keys already."""
        return 0 if self.has_keys else self.tokens

    def embeddings(self) -> torch.Tensor:
        """What the model reads in place of its embeddings of ids, float32 [1, tokens, hidden]."""
        return read_entry(self.entry, EMBEDDINGS).unsqueeze(0)

    def keys_and_values(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Each layer's keys and values as its attention sees them, with no rotation to come:
        float32 [1, kv_heads, tokens, head]."""
        whole = read_entry(self.entry, EMBEDDINGS)
        parts = whole.view(self.tokens, self.layers, 2, self.kv_heads, -1).permute(1, 2, 3, 0, 4)
        return [(keys.unsqueeze(0), values.unsqueeze(0)) for keys, values in parts]
