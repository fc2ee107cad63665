"""The cut: an output layer of one row per label token instead of one per vocabulary token.

Decoder trimming (Thomas 2024): a classifier that asks in a prompt reads the logits of the label
words alone, so the other rows of the output layer need not exist.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from trimexport.errors import SpecError


class TrimmedHead(nn.Linear):
    """The label tokens' rows of an output layer, and the soft-cap that follows it.

    `forward`: hidden states [..., hidden] -> label token logits [..., tokens].
    """

    def __init__(self, hidden: int, tokens: int, softcap: float | None) -> None:
        super().__init__(hidden, tokens, bias=True)
        self.softcap = softcap

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Logits of the label tokens; with a soft-cap c they are c * tanh(logits / c)."""
        logits = super().forward(input)
        if self.softcap is None:
            return logits
        return self.softcap * torch.tanh(logits / self.softcap)


def trim_head(model: nn.Module, token_ids: Sequence[int]) -> TrimmedHead:
    """Cut the output layer of a causal language model down to `token_ids`.

    Args:
        model: a transformers `*ForCausalLM`. It is not changed: where its output layer is tied
            to the embedding, the embedding keeps every row.
        token_ids: the vocabulary tokens to keep, in the order of the new logits.

    Returns:
        A linear layer with rows `token_ids` of `lm_head` in their own dtype, its bias (zero where
        `lm_head` has none), and the model's final soft-cap (Gemma 2), if any. On the model's last
        hidden states it gives the full model's logits at `token_ids`.

    Raises:
        SpecError: no token, or one outside the vocabulary.
    """
    full = model.get_output_embeddings()  # type: ignore[operator]
    rows = full.weight.shape[0]
    outside = [token for token in token_ids if not 0 <= token < rows]
    if outside or not token_ids:
        raise SpecError(
            f"token ids {outside or 'none'} cannot be cut from an output layer of {rows} rows; "
            f"give ids from 0 to {rows - 1}"
        )
    chosen = torch.tensor(list(token_ids))
    return head_of(
        full.weight.detach()[chosen],
        None if full.bias is None else full.bias.detach()[chosen],
        getattr(model.config, "final_logit_softcapping", None),
    )


def head_of(rows: torch.Tensor, bias: torch.Tensor | None, softcap: float | None) -> TrimmedHead:
    """A trimmed head from rows [tokens, hidden] that were cut already; no bias becomes zero."""
    tokens, hidden = rows.shape
    head = TrimmedHead(hidden, tokens, softcap)
    zero = torch.zeros(tokens, dtype=rows.dtype, device=rows.device)
    head.weight = nn.Parameter(rows.clone(), requires_grad=False)
    head.bias = nn.Parameter(zero if bias is None else bias.clone(), requires_grad=False)
    return head
