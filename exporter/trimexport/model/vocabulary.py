"""What the untrimmed model would say, of its whole vocabulary, at the answer's place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from trimexport.errors import SpecError
from trimexport.planning import Setting, whole_ids
from trimexport_runtime.inputs import Input

from .layerwise import LayerwiseModel

# Texts whose logits are in memory at once, of a block of the vocabulary or of all of it.
_ROWS = 1024
_WHOLE_ROWS = 64


def answer_states(
    model: LayerwiseModel,
    setting: Setting,
    texts: Sequence[Input],
    progress: Callable[[int], None] = lambda done: None,
) -> torch.Tensor:
    """The hidden states after each whole prompt, which the output layer reads: float32 [texts,
    hidden].

    Raises:
        SpecError: a text without tokens, where the prompt has none either.
    """
    sequences = whole_ids(setting, texts)
    if not all(sequences):
        raise SpecError("a text is empty, and so is the prompt around it; leave it out")
    return model.hidden_states(sequences, progress)


def log_normaliser(model: LayerwiseModel, hidden: torch.Tensor) -> torch.Tensor:
    """The log of the sum of exp over the whole vocabulary: float32 [n] for hidden [n, hidden]."""
    _, normaliser = model.read_vocabulary(hidden, ())
    return normaliser


def mean_probabilities(
    model: LayerwiseModel,
    hidden: torch.Tensor,
    normaliser: torch.Tensor,
    groups: torch.Tensor,
    count: int,
) -> torch.Tensor:
    """Every token's probability, averaged over the texts of each group: float32 [count, tokens].

    Args:
        hidden: [n, hidden].
        normaliser: theirs, of `log_normaliser`.
        groups: int64 [n], each text's group, below `count`; no group is empty.
    """
    member = torch.nn.functional.one_hot(groups, count).float()
    member = member / member.sum(0)
    total = torch.zeros(count, 0)
    for rows, shift, weights in zip(
        hidden.split(_ROWS), normaliser.split(_ROWS), member.split(_ROWS), strict=True
    ):
        blocks = [
            weights.T @ (logits - shift[:, None]).exp() for _, logits in model.head_blocks(rows)
        ]
        part = torch.cat(blocks, 1)
        total = total + part if total.shape[1] else part
    return total


@dataclass(frozen=True)
class Likeliest:
    """The likeliest tokens of n rows, the likeliest first: `token_ids` int64 [n, count] and their
    `probabilities` float32 [n, count]; `asked` float32 [n, tokens], those of the tokens that were
    asked for."""

    token_ids: torch.Tensor
    probabilities: torch.Tensor
    asked: torch.Tensor


def likeliest(
    model: LayerwiseModel, hidden: torch.Tensor, count: int, token_ids: Sequence[int]
) -> Likeliest:
    """The `count` likeliest tokens after hidden states [n, hidden], and the probabilities of the
    tokens `token_ids`."""
    best, asked = [], []
    for rows in hidden.split(_WHOLE_ROWS):
        logits = torch.cat([block for _, block in model.head_blocks(rows)], 1)
        probabilities = logits.softmax(1)
        best.append(probabilities.topk(count, dim=1))
        asked.append(probabilities[:, list(token_ids)])
    return Likeliest(
        token_ids=torch.cat([top.indices for top in best]),
        probabilities=torch.cat([top.values for top in best]),
        asked=torch.cat(asked),
    )
