"""The cut: an output layer of one row per label token instead of one per vocabulary token.

Decoder trimming (Thomas 2024): a classifier that asks in a prompt reads the logits of the label
words alone, so the other rows of the output layer need not exist.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from trimexport.errors import SpecError, UnsupportedError
from trimexport.source.empty_model import output_layer
from trimexport.source.families import Finish, finish_of

ReadRows = Callable[[str, Sequence[int]], torch.Tensor]
"""`weight` or `bias`, and which of its rows -> those rows, in that order."""


class TrimmedHead(nn.Linear):
    """The label tokens' rows of an output layer, and what follows it: a divisor, a soft-cap.

    `forward`: hidden states [..., hidden] -> label token logits [..., tokens].
    """

    def __init__(
        self, hidden: int, tokens: int, softcap: float | None = None, divisor: float = 1.0
    ) -> None:
        super().__init__(hidden, tokens, bias=True)
        self.softcap = softcap
        self.divisor = divisor

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Logits of the label tokens."""
        return finished(super().forward(input), Finish(self.divisor, self.softcap))


def trim_head(
    model: PreTrainedModel, token_ids: Sequence[int], read: ReadRows | None = None
) -> TrimmedHead:
    """Cut the output layer of a language model down to `token_ids`.

    Args:
        model: of a supported family. It is not changed: where its output layer is tied to the
            embedding, the embedding keeps every row.
        token_ids: the vocabulary tokens to keep, in the order of the new logits; of a fine-tuned
            classifier the labels.
        read: reads rows of the output layer where they are not in memory; None takes them from
            `model` itself.

    Returns:
        A linear layer with rows `token_ids` of the output layer in their own dtype, its bias (zero
        where it has none), and the divisor (Granite) and soft-cap (Gemma 2) of the model's logits,
        if any. On the model's last hidden states it gives the full model's logits at `token_ids`.

    Raises:
        SpecError: no token, or one outside the vocabulary.
        UnsupportedError: a model of another family, whose logits might be more than the output
            layer's, or an output layer that is more than its rows.
    """
    finish = finish_of(model)
    full = output_layer(model)
    _check_layer(full)
    _check_rows(token_ids, len(full.get_parameter("weight")))
    read = functools.partial(_rows_in_memory, full) if read is None else read
    weight = read("weight", token_ids)
    zero = torch.zeros(len(token_ids), dtype=weight.dtype, device=weight.device)
    bias = zero if full.bias is None else read("bias", token_ids)
    head = TrimmedHead(weight.shape[1], len(token_ids), finish.softcap, finish.divisor)
    head.weight = nn.Parameter(weight, requires_grad=False)
    head.bias = nn.Parameter(bias, requires_grad=False)
    return head


def finished(logits: torch.Tensor, finish: Finish) -> torch.Tensor:
    """A model's logits, from those of its output layer."""
    divisor, softcap = finish
    if divisor != 1:
        logits = logits / divisor
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def _rows_in_memory(layer: nn.Module, name: str, rows: Sequence[int]) -> torch.Tensor:
    return layer.get_parameter(name).detach()[torch.tensor(list(rows))]


def _check_layer(layer: nn.Module) -> None:
    """Raise UnsupportedError unless the layer is a plain linear one: an adapter on it, or numbers
    in a packed form, would be lost."""
    kind = type(layer)
    if kind is not nn.Linear:
        raise UnsupportedError(
            f"the model's output layer is a {kind.__module__}.{kind.__name__}, whose logits are "
            "not those of its rows alone; merge an adapter first (merge_and_unload in peft), or "
            "load the model without quantisation"
        )


def _check_rows(token_ids: Sequence[int], rows: int) -> None:
    outside = [token for token in token_ids if not 0 <= token < rows]
    if outside or not token_ids:
        raise SpecError(
            f"token ids {outside or 'none'} cannot be cut from an output layer of {rows} rows; "
            f"give ids from 0 to {rows - 1}"
        )
