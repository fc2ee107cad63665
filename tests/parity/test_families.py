"""Each family, whatever the prompt: the bundle through the runtime, transformers as the judge.

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

from models import GEMMA_MINI, TEXTS, Untrimmed, gemma, llama, save
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


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
PLAIN = "Review: {text}\nSentiment:"
CASES = {
    "gemma": Case(gemma, PLAIN),
    "gemma-long-prefix": Case(gemma, "Read. Then answer {{well}}.\n\n" * 8 + PLAIN),
    "gemma-no-prefix": Case(gemma, "{text}\nSentiment:", saving={"dtype": torch.bfloat16}),
    "gemma-no-suffix": Case(gemma, "Sentiment of: {text}", {"tie_word_embeddings": False}),
    "gemma-bare": Case(gemma, "{text}", saving={"dtype": torch.float16}),
    "llama": Case(llama, PLAIN, saving={"dtype": torch.bfloat16, "shard": "500KB"}),
    "llama-dummy-prefix": Case(llama, "{text}\nTopic:", saving={"dummy_prefix": True}),
    "llama-tied-rope": Case(
        llama, PLAIN, {"tie_word_embeddings": True, "rope_parameters": LLAMA3_ROPE}
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bundle_answers_as_the_untrimmed_model(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    directory = save(case.make(**case.options), tmp_path / "model", **case.saving)
    spec = BuildSpec(model=str(directory), labels=LABELS, prompt=case.prompt)
    built = build(spec, tmp_path / "bundle")
    judge = Untrimmed(directory)
    tokens = [label.token_ids[0] for label in built.manifest.labels]
    joined = [case.prompt.replace("{{", "{").replace("}}", "}").replace("{text}", t) for t in TEXTS]
    texts, ids = _without_gap(joined, judge, built.manifest, tmp_path / "bundle")

    expected = torch.stack([judge.logits(row) for row in ids])[:, tokens].numpy()
    mutant = torch.stack([judge.logits(_without_one(row)) for row in ids])[:, tokens].numpy()
    found = Classifier.load(tmp_path / "bundle").logits(texts)

    assert expected.std(axis=0).mean() >= 1, "a model that says nothing proves nothing"
    assert np.abs(found - expected).max() < TOLERANCE
    assert np.abs(found - mutant).max() > 100 * TOLERANCE


def _without_gap(
    joined: list[str], judge: Untrimmed, manifest: Any, bundle: Path
) -> tuple[list[str], list[list[int]]]:
    """Texts whose joined ids are those of the segments (most are), and those ids."""
    from trimexport_runtime.tokenize import TextEncoder

    encoder = TextEncoder.load(bundle, manifest)
    prompt = manifest.prompt
    texts, ids = [], []
    for text, whole in zip(TEXTS, joined, strict=True):
        own = [*prompt.prefix_ids, *encoder.encode(text).ids.tolist(), *prompt.suffix_ids]
        if judge.ids(whole) == own and len(own) > 1:
            texts.append(text)
            ids.append(own)
    assert len(texts) >= 5, "the segments should agree with the joined string on most texts"
    return texts, ids


def _without_one(row: list[int]) -> list[int]:
    """The mutant: a prompt that lost a token of its prefix, or bos if the prefix is bos alone."""
    return row[1:] if len(row) == 2 else [*row[:1], *row[2:]]


def test_several_words_add_up(tmp_path: Path) -> None:
    """A label's probability is the sum of its words' probabilities."""
    directory = save(gemma(seed=3), tmp_path / "model")
    words = {"good": ("good", "great", "positive"), "bad": ("bad",)}
    spec = BuildSpec(model=str(directory), labels=("good", "bad"), prompt=PLAIN, verbalizers=words)
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
    spec = BuildSpec(model=str(GEMMA_MINI), labels=("negative", "positive"), prompt=PLAIN)
    build(spec, tmp_path / "bundle")
    permuted = Classifier.load(tmp_path / "bundle").logits(TEXTS)
    assert np.array_equal(permuted[:, ::-1], Classifier.load(sentiment).logits(TEXTS))
