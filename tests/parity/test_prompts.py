"""Every kind of prompt and of checkpoint: the bundle through the runtime, transformers the judge.

The judge sees the joined string and is told nothing about segments, caches or trimming.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from models import (
    GEMMA_MINI,
    TEXTS,
    Untrimmed,
    gemma,
    llama,
    save,
    segments_without_gap,
    without_one,
)
from trimexport import BuildSpec, build
from trimexport_runtime import Classifier

TOLERANCE = 1e-3
LABELS = ("positive", "negative", "World")


@dataclass(frozen=True)
class Case:
    """A model, how it is saved, and a prompt."""

    make: Callable[..., PreTrainedModel]
    prompt: str
    options: dict[str, Any] = field(default_factory=dict)
    saving: dict[str, Any] = field(default_factory=dict)


PLAIN = "Review: {text}\nSentiment:"
CASES = {
    "no-prefix": Case(gemma, "{text}\nSentiment:", saving={"dtype": torch.bfloat16}),
    "no-suffix": Case(gemma, "Sentiment of: {text}", {"tie_word_embeddings": False}),
    "bare": Case(gemma, "{text}", saving={"dtype": torch.float16}),
    "braces": Case(
        llama, "Answer {{well}}.\n" + PLAIN, saving={"dtype": torch.bfloat16, "shard": "500KB"}
    ),
    "dummy-prefix": Case(llama, "{text}\nTopic:", saving={"dummy_prefix": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_bundle_answers_as_the_untrimmed_model(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    directory = save(case.make(**case.options), tmp_path / "model", **case.saving)
    spec = BuildSpec(precision=("fp32",), model=str(directory), labels=LABELS, prompt=case.prompt)
    built = build(spec, tmp_path / "bundle")
    judge = Untrimmed(directory)
    tokens = [label.token_ids[0] for label in built.manifest.labels]
    texts, ids = segments_without_gap(case.prompt, judge, built.manifest, tmp_path / "bundle")
    place = 0 if len(built.manifest.prompt.prefix_ids) == 1 else 1

    expected = judge.logits_of(ids, tokens)
    mutant = judge.logits_of([without_one(row, place) for row in ids], tokens)
    found = Classifier.load(tmp_path / "bundle").logits(texts)

    assert expected.std(axis=0).mean() >= 1, "a model that says nothing proves nothing"
    assert np.abs(found - expected).max() < TOLERANCE
    assert np.abs(found - mutant).max() > 100 * TOLERANCE


def test_several_words_add_up(tmp_path: Path) -> None:
    """A label's probability is the sum of its words' probabilities."""
    directory = save(gemma(seed=3), tmp_path / "model")
    words = {"good": ("good", "great", "positive"), "bad": ("bad",)}
    spec = BuildSpec(
        precision=("fp32",),
        model=str(directory),
        labels=("good", "bad"),
        prompt=PLAIN,
        verbalizers=words,
    )
    built = build(spec, tmp_path / "bundle")
    judge = Untrimmed(directory)
    found = Classifier.load(tmp_path / "bundle").logits(["dull", "a fine film"])
    for row, text in zip(found, ["dull", "a fine film"], strict=True):
        full = judge.logits(judge.ids(PLAIN.replace("{text}", text)))
        groups = [
            torch.logsumexp(full[list(label.token_ids)], 0) for label in built.manifest.labels
        ]
        assert np.abs(row - torch.stack(groups).numpy()).max() < TOLERANCE
    assert [len(label.token_ids) for label in built.manifest.labels] == [3, 1]


def test_labels_may_come_in_any_order(sentiment: Path, tmp_path: Path) -> None:
    """Permuting the labels permutes the logits and changes nothing else."""
    spec = BuildSpec(
        precision=("fp32",), model=str(GEMMA_MINI), labels=("negative", "positive"), prompt=PLAIN
    )
    build(spec, tmp_path / "bundle")
    permuted = Classifier.load(tmp_path / "bundle").logits(TEXTS)
    assert np.array_equal(permuted[:, ::-1], Classifier.load(sentiment).logits(TEXTS))
