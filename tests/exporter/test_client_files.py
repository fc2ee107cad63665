"""The bundle's config.json, which clients of ordinary classifiers read, for every family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

import families
from trimexport import BuildSpec, plan
from trimexport.bundle import write_client_files
from trimexport.planning import Plan

EXPECTED = {
    "gemma": "GemmaForSequenceClassification",
    "gemma2": "Gemma2ForSequenceClassification",
    "gemma3": "Gemma3TextForSequenceClassification",
    "gemma3-multimodal": "Gemma3TextForSequenceClassification",
    "llama3": "LlamaForSequenceClassification",
    "smollm": "LlamaForSequenceClassification",
    "smollm3": "SmolLM3ForSequenceClassification",
    "mistral": "MistralForSequenceClassification",
    "phi3": "Phi3ForSequenceClassification",
    "phi3-longrope": "Phi3ForSequenceClassification",
    "qwen2": "Qwen2ForSequenceClassification",
    "qwen3": "Qwen3ForSequenceClassification",
    "gpt2": "GPT2ForSequenceClassification",
    "gpt2-scaled": "GPT2ForSequenceClassification",
}


def written(name: str, place: Path) -> tuple[Plan, dict[str, Any]]:
    """A plan for a family's language model, and the config.json that its bundle would have."""
    directory = families.make(name, place / "model")
    spec = BuildSpec(
        precision=("fp32",),
        model=str(directory),
        labels=("positive", "negative"),
        prompt="Review: {text}\nSentiment:",
    )
    planned = plan(spec)
    write_client_files(planned, place)
    return planned, json.loads((place / "config.json").read_text(encoding="utf-8"))


def test_no_family_is_forgotten() -> None:
    assert set(EXPECTED) == set(families.FAMILIES)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_ordinary_classifier_s_configuration(name: str, tmp_path: Path) -> None:
    planned, config = written(name, tmp_path)
    assert config["architectures"] == [EXPECTED[name]]
    assert config["max_position_embeddings"] == planned.limit
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is type(planned.checkpoint.config)
    assert loaded.id2label == {0: "positive", 1: "negative"}
    assert loaded.label2id == {"positive": 0, "negative": 1}
    assert loaded.max_position_embeddings == planned.limit
    assert loaded.num_hidden_layers == 2
    assert "vision_config" not in config
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.model_max_length == planned.limit
    assert tokenizer.pad_token_id == loaded.pad_token_id == planned.tokenizer.pad_token_id


def test_gpt2_s_limit_is_under_both_of_its_names(tmp_path: Path) -> None:
    planned, config = written("gpt2", tmp_path)
    assert planned.limit < 256
    assert config["n_positions"] == config["max_position_embeddings"] == planned.limit
