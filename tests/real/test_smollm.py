"""SmolLM2-135M-Instruct, a chat model with another architecture and another kind of tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models import without_one
from real.conftest import REVIEWS, SAMPLE, Judge
from trimexport import BuildSpec, build
from trimexport_runtime import Classifier

PROMPT = "Is the following film review positive or negative? Answer with one word.\nReview: {text}"


def test_the_chat_template(smollm: Path, tmp_path: Path) -> None:
    """What transformers' own rendering of the turn makes the model say."""
    labels = ("Positive", "Negative")
    spec = BuildSpec(str(smollm), labels, PROMPT, chat=True, precision=("fp32",))
    manifest = build(spec, tmp_path / "bundle", sample=SAMPLE).manifest
    judge = Judge(smollm)
    turns = [[{"role": "user", "content": PROMPT.replace("{text}", it)}] for it in REVIEWS.texts]
    strings = [
        judge.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        for turn in turns
    ]
    rows = [judge.tokenizer(it, add_special_tokens=False)["input_ids"] for it in strings]
    tokens = [label.token_ids[0] for label in manifest.labels]
    expected = judge.logits(rows, tokens)
    found = Classifier.load(tmp_path / "bundle").logits(list(REVIEWS.texts))
    assert np.abs(found - expected).max() < 1e-3
    last = len(manifest.prompt.prefix_ids) - 1
    mutant = judge.logits([without_one(row, last) for row in rows], tokens)
    assert np.abs(found - mutant).max() > 0.05
