"""Adapters made by peft itself, and the models that it merges them into.

Run in a process of its own, which has peft: `python make_adapters.py JOBS`, JSON lines with `base`
(a checkpoint), `config` (of `peft.LoraConfig`), `adapter` and `merged` (directories to write). The
adapters' numbers are random and large, so that answers move.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification


def main() -> None:
    for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
        job = json.loads(line)
        classifier = job["config"]["task_type"] == "SEQ_CLS"
        kind = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
        model = kind.from_pretrained(job["base"], dtype=torch.float32)
        model = get_peft_model(model, LoraConfig(**job["config"]))
        fill(model)
        model.save_pretrained(job["adapter"])
        model.merge_and_unload().save_pretrained(job["merged"])


@torch.no_grad()
def fill(model: torch.nn.Module) -> None:
    """Random numbers for all that would have been trained."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "lora_A" in name:
            parameter.copy_(noise / parameter.shape[1] ** 0.5)
        elif "lora_B" in name:
            parameter.copy_(0.1 * noise)
        elif parameter.requires_grad:
            parameter.add_(0.2 * noise)


if __name__ == "__main__":
    main()
