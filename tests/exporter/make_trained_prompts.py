"""Trained prompts made by peft itself, and what peft's own model answers with them.

Run in a process of its own, which has peft: `python make_trained_prompts.py JOBS`, JSON lines with
`base` (a checkpoint), `method` (a class of peft), `config` (its arguments), `adapter` (a directory
to write), `sequences` (token ids) and `logits` (a file to write: float32 [sequences, outputs], the
output layer's at each one's end). What would have been trained is random and large, so that answers
move.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification


def main() -> None:
    opened: dict[str, Any] = {}
    for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
        job = json.loads(line)
        classifier = job["config"]["task_type"] == "SEQ_CLS"
        if job["base"] not in opened:
            opened[job["base"]] = base_of(job["base"], classifier)
        base = opened[job["base"]]
        config = getattr(peft, job["method"])(**job["config"])
        model = peft.get_peft_model(copy.deepcopy(base), config)
        fill(model)
        model.save_pretrained(job["adapter"])
        again = peft.PeftModel.from_pretrained(copy.deepcopy(base), job["adapter"]).eval()
        save_file({"logits": answers(again, job["sequences"], classifier)}, job["logits"])


def base_of(directory: str, classifier: bool) -> Any:
    """The model alone; sdpa leaves out Gemma 2's soft-cap of the attention."""
    kind = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    return kind.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")


@torch.no_grad()
def fill(model: torch.nn.Module) -> None:
    """Random numbers for all that would have been trained."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "prompt_encoder" in name and "embedding" not in name and parameter.ndim > 1:
            parameter.copy_(2 * noise / parameter.shape[1] ** 0.5)
        elif parameter.requires_grad:
            parameter.copy_(noise)


@torch.no_grad()
def answers(model: Any, sequences: list[list[int]], classifier: bool) -> torch.Tensor:
    """The model's logits after each sequence, each in a batch of its own."""
    rows = []
    for ids in sequences:
        given = torch.tensor([ids])
        logits = model(input_ids=given, attention_mask=torch.ones_like(given)).logits[0]
        rows.append(logits if classifier else logits[-1])
    return torch.stack(rows)


if __name__ == "__main__":
    main()
