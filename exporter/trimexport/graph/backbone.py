"""A model without a task, as one module: the task is among its inputs (see `task_inputs`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from trimexport.model.head import finished
from trimexport.source.empty_model import attention_of, layers_of
from trimexport.source.families import Finish

from .label_tree import NOWHERE, among
from .task_inputs import CORRECTION, TEXT, Taken, task_inputs

Arrays = Mapping[str, torch.Tensor]


class Backbone(nn.Module):
    """Text tokens and a task in, the task's outputs out.

    Args:
        body: the decoder without its output layer.
        finish: what the model does to the logits of its output layer.
        layers: as in `task_inputs`, of those layers that `body` has.
        hidden: the width of the hidden states.
    """

    def __init__(
        self, body: nn.Module, finish: Finish, layers: Sequence[tuple[int, int]], hidden: int
    ) -> None:
        super().__init__()
        self.body = body
        self.finish = finish
        self.layers = tuple(layers)
        self.hidden = hidden

    @property
    def inputs(self) -> dict[str, Taken]:
        """What `forward` takes, in its order."""
        return {**TEXT, **task_inputs(self.layers, self.hidden)}

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, task: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Both int64 [batch, sequence], any padding, and the task's arrays in the order of
        `inputs` -> float32 [batch, outputs]."""
        given = dict(zip(list(self.inputs)[len(TEXT) :], task, strict=True))
        ids, last = place(input_ids, attention_mask, given)
        position = torch.arange(ids.shape[1]).unsqueeze(0)
        seen = (position.unsqueeze(1) <= position.unsqueeze(2)).unsqueeze(1)
        shift = given["tree_shift"]
        position, seen = among(position, seen, last, given["tree_seen"].flatten(), shift)
        hidden = self._run(ids, seen, position + given["prefix_count"], given)
        places = (last + given["picks"]).clamp(min=0)
        index = places.unsqueeze(2).expand(-1, -1, hidden.shape[2])
        rows = hidden.gather(1, index)
        return outputs(_logits(rows, given, self.finish), given)

    def _run(
        self, ids: torch.Tensor, seen: torch.Tensor, position: torch.Tensor, given: Arrays
    ) -> torch.Tensor:
        """The body's last hidden states behind the prefix."""
        attentions = [attention_of(layer) for layer in layers_of(self.body)]
        for number, module in enumerate(attentions):
            # A dict is no tensor of the module's, which the tracer would take for its state.
            vars(module)["prefix"] = {
                "key": given[f"prefix_key.{number}"],
                "value": given[f"prefix_value.{number}"],
                "bias": given["prefix_bias"],
            }
        body: Any = self.body
        hidden: torch.Tensor = body(
            input_ids=ids, attention_mask=seen, position_ids=position, use_cache=False
        ).last_hidden_state
        for module in attentions:
            del vars(module)["prefix"]
        return hidden


def place(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, given: Arrays
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `CompiledClassifier.place` does, with the task's tokens; at least one of them stands
    before or behind the text."""
    batch = input_ids.shape[0]
    real = (attention_mask != 0).to(torch.int64)
    count = real.sum(1, keepdim=True)
    behind = given["behind_ids"]
    kept = real.cumsum(1) - 1
    padding = count + behind.shape[1] - 1 + torch.arange(real.shape[1]) - kept
    target = torch.where(real != 0, kept, padding)
    target = torch.cat([target, count + torch.arange(behind.shape[1])], 1)
    ids = torch.cat([input_ids, behind.expand(batch, -1)], 1)
    ids = torch.scatter(ids, 1, target, ids)
    ids = torch.cat([given["lead_ids"].expand(batch, -1), ids], 1)
    return ids, count + given["answer_at"]


def _logits(rows: torch.Tensor, given: Arrays, finish: Finish) -> torch.Tensor:
    """The head's logits [batch, picks, R] of hidden states [batch, picks, hidden]."""
    flat = (rows + given[CORRECTION]).reshape(-1, rows.shape[-1])
    each = torch.matmul(flat, given["head_weight"]).transpose(0, 1) + given["head_bias"]
    logits: torch.Tensor = each.unflatten(0, (-1, given["picks"].shape[0])).flatten(2)
    if finish == Finish():
        return logits
    own = given["finished"].flatten() != 0
    capped: torch.Tensor = torch.where(own, finished(logits, finish), logits)
    return capped


def outputs(logits: torch.Tensor, given: Arrays) -> torch.Tensor:
    """What the task makes of its head's logits [batch, picks, R]: float32 [batch, outputs]."""
    options = given["options"]
    rows = logits.shape[2] + 1
    own = options + (torch.arange(options.shape[0]) * rows).unsqueeze(1)
    flat = torch.cat([logits, torch.full_like(logits[:, :, :1], NOWHERE)], 2).flatten(1)
    chosen = flat.index_select(1, own.flatten()).unflatten(1, (options.shape[0], -1))
    chosen = chosen - given["normalised"] * chosen.logsumexp(2, keepdim=True)
    steps, words = given["steps"], given["words"]
    chosen = _with(chosen.flatten(1), 0.0).index_select(1, steps.flatten())
    scores = _with(chosen.unflatten(1, (steps.shape[0], -1)).sum(1), NOWHERE)
    labels = scores.index_select(1, words.flatten()).unflatten(1, (words.shape[0], -1))
    labels = _with(labels.logsumexp(2), 0.0)
    result = labels.index_select(1, given["plus"]) - labels.index_select(1, given["minus"])
    return result * given["scale"] + given["shift"]


def _with(table: torch.Tensor, last: float) -> torch.Tensor:
    """A table [batch, n] with a column more, of one number."""
    return torch.cat([table, torch.full_like(table[:, :1], last)], 1)
