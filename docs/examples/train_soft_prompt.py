"""Train a soft prompt with peft: virtual tokens before a prompt, of a model that stays as it is.

    python docs/examples/train_soft_prompt.py MODEL TRAIN.jsonl ADAPTER

Needs peft and transformers. MODEL is a directory or hub id, TRAIN.jsonl has rows with `text` and
`label`, of which 64 of each label are trained on and 64 others choose the epoch.
ADAPTER is the directory that `trimexport build --adapter` takes, with the same PROMPT.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

LABELS = ("positive", "negative")
BEFORE, BEHIND = "Review:", "\nSentiment:"  # of PROMPT = "Review: {text}\nSentiment:"
START = "Say whether this review of a film is positive or negative."  # becomes virtual tokens
VIRTUAL = 12
SHOTS = 64  # of each label to train on, and as many to choose by
EPOCHS = 5
BATCH = 8
RATE = 3e-3
LONGEST = 48  # tokens of a text

Row = tuple[list[int], int]  # the ids of a whole prompt, and the place of its label in LABELS


def main(model: str, rows: str, adapter: str) -> None:
    """Train with each rate, and save the best epoch of all by the accuracy on what chooses."""
    begin, best = time.monotonic(), -1.0
    tokenizer = AutoTokenizer.from_pretrained(model)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    words = [one_token(tokenizer, f" {label}") for label in LABELS]
    train, chosen_by = draw(Path(rows), tokenizer)
    print(f"plain prompt: {accuracy(base, chosen_by, words):.1%} of {len(chosen_by)}")
    config = PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=VIRTUAL,
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text=START,
        tokenizer_name_or_path=model,
    )
    learner = get_peft_model(base, config)
    for epoch, loss in enumerate(train_epochs(learner, train, words), 1):
        share = accuracy(learner, chosen_by, words)
        minutes = (time.monotonic() - begin) / 60
        print(f"epoch {epoch}: loss {loss:.3f}, {share:.1%}, {minutes:.1f} min", flush=True)
        if share > best:
            best = share
            learner.save_pretrained(adapter)
    print(f"saved {adapter}: {best:.1%} of {len(chosen_by)}")


def one_token(tokenizer: Any, word: str) -> int:
    (token,) = tokenizer(word, add_special_tokens=False)["input_ids"]
    return int(token)


def draw(path: Path, tokenizer: Any) -> tuple[list[Row], list[Row]]:
    """Rows to train on and rows to choose by, as many of each label. Each part of a prompt is
    tokenised by itself, as a bundle has it."""

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    start = list(tokenizer(BEFORE)["input_ids"])
    found: dict[str, list[Row]] = {label: [] for label in LABELS}
    lines = path.read_text(encoding="utf-8").splitlines()
    random.Random(0).shuffle(lines)
    for row in map(json.loads, lines):
        text = ids(" " + row["text"])
        if len(found[row["label"]]) < 2 * SHOTS and len(text) <= LONGEST:
            whole = [*start, *text, *ids(BEHIND)]
            found[row["label"]].append((whole, LABELS.index(row["label"])))
    halves = [(rows[:SHOTS], rows[SHOTS:]) for rows in found.values()]
    train, chosen_by = (list(itertools.chain(*each)) for each in zip(*halves, strict=True))
    return train, chosen_by


def batches(rows: list[Row]) -> Iterator[tuple[dict[str, Any], torch.Tensor, torch.Tensor]]:
    """What the model reads of some rows at a time, padded behind their ends; the place of each end;
    and the labels."""
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        width = max(len(ids) for ids, _ in some)
        given = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids, _ in some])
        lengths = torch.tensor([len(ids) for ids, _ in some])
        mask = (torch.arange(width) < lengths.unsqueeze(1)).long()
        labels = torch.tensor([label for _, label in some])
        yield {"input_ids": given, "attention_mask": mask}, lengths - 1, labels


def label_logits(
    model: Any, given: dict[str, Any], ends: torch.Tensor, words: list[int]
) -> torch.Tensor:
    """The logits of the labels' words after each row's end, float32 [rows, labels]. The output
    layer is only read at places where a row ends."""
    virtual = VIRTUAL if hasattr(model, "peft_config") else 0
    places, which = torch.unique(ends, return_inverse=True)
    logits = model(**given, use_cache=False, logits_to_keep=places + virtual).logits
    found: torch.Tensor = logits[torch.arange(len(ends)), which][:, words].float()
    return found


def train_epochs(model: Any, rows: list[Row], words: list[int]) -> Iterator[float]:
    """Train, and yield each epoch's mean loss."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps = EPOCHS * -(-len(rows) // BATCH)
    optimiser = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, steps)
    order = random.Random(1)
    for _ in range(EPOCHS):
        losses = []
        for given, ends, labels in batches(order.sample(rows, len(rows))):
            found = label_logits(model, given, ends, words)
            loss = torch.nn.functional.cross_entropy(found, labels)
            loss.backward()
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            losses.append(loss.item())
        yield sum(losses) / len(losses)


@torch.no_grad()
def accuracy(model: Any, rows: list[Row], words: list[int]) -> float:
    """The share of rows whose label is the likelier one."""
    ordered = sorted(rows, key=lambda row: len(row[0]))
    right = [
        label_logits(model, given, ends, words).argmax(1) == labels
        for given, ends, labels in batches(ordered)
    ]
    return torch.cat(right).float().mean().item()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: python {sys.argv[0]} MODEL TRAIN.jsonl ADAPTER")
    main(*sys.argv[1:])
