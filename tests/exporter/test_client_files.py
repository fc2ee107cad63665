"""The bundle's config.json, which clients of ordinary classifiers read, for every family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

import families
from tiny import edit_json
from trimexport import BuildSpec, plan
from trimexport.bundle.files import write_client_files
from trimexport.bundle.variants import SCHEMES
from trimexport.planning import Plan
from trimexport_runtime.bundle import Variant

EXPECTED = {
    "gemma": "GemmaForSequenceClassification",
    "gemma2": "Gemma2ForSequenceClassification",
    "gemma3": "Gemma3TextForSequenceClassification",
    "gemma3-multimodal": "Gemma3TextForSequenceClassification",
    "granite": "GraniteForSequenceClassification",  # which transformers has not
    "llama3": "LlamaForSequenceClassification",
    "smollm": "LlamaForSequenceClassification",
    "smollm3": "SmolLM3ForSequenceClassification",
    "mistral": "MistralForSequenceClassification",
    "olmo2": "Olmo2ForSequenceClassification",
    "phi3": "Phi3ForSequenceClassification",
    "phi3-longrope": "Phi3ForSequenceClassification",
    "qwen2": "Qwen2ForSequenceClassification",
    "qwen3": "Qwen3ForSequenceClassification",
    "gpt2": "GPT2ForSequenceClassification",
    "gpt2-scaled": "GPT2ForSequenceClassification",
}


def variant(name: str, graph: str, *others: str) -> Variant:
    """A variant of these files."""
    files = (f"onnx/{graph}", *(f"onnx/{other}" for other in others))
    return Variant(name, files[0], files, precision=name, opset=23, providers=(), bytes=1)


FP32 = variant("fp32", "model.onnx", "model.onnx_data")


def written(name: str, place: Path, *variants: Variant) -> tuple[Plan, dict[str, Any]]:
    """A plan for a family's language model, and the config.json that its bundle would have with
    these variants, or with fp32 alone."""
    directory = families.make(name, place / "model")
    spec = BuildSpec(
        precision=("fp32",),
        model=str(directory),
        labels=("positive", "negative"),
        prompt="Review: {text}\nSentiment:",
    )
    planned = plan(spec)
    write_client_files(planned, variants or (FP32,), place)
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


def test_what_transformers_js_is_told(tmp_path: Path) -> None:
    """The variant named first, and the graphs whose weights are in a data file of their own name:
    int4 here has int8's besides, and the copy of int8's graph under the clients' name has only
    that."""
    _, config = written(
        "gemma",
        tmp_path,
        variant("int8", "model_int8.onnx", "model_int8.onnx_data", "model.onnx"),
        variant("int4", "model_q4.onnx", "model_int8.onnx_data", "model_q4.onnx_data"),
        variant("fp16", "model_fp16.onnx", "model_int8.onnx_data"),
        variant("fp32", "model_fp32.onnx", "model_fp32.onnx_data"),
    )
    assert config["transformers.js_config"] == {
        "dtype": "int8",
        "use_external_data_format": {"model_int8.onnx": True, "model_fp32.onnx": True},
    }


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", "fp32"), ("fp16", "fp16"), ("int8", "int8"), ("int4", "q4")]
)
def test_precisions_as_transformers_js_calls_them(
    tmp_path: Path, precision: str, dtype: str
) -> None:
    graph = f"model{SCHEMES[precision].suffix}.onnx"
    _, config = written("gemma", tmp_path, variant(precision, graph))
    assert config["transformers.js_config"] == {"dtype": dtype, "use_external_data_format": {}}


def test_what_the_checkpoint_told_transformers_js_is_not_kept(tmp_path: Path) -> None:
    directory = families.make("gemma", tmp_path / "model")
    edit_json(directory / "config.json", _for_another_graph)
    spec = BuildSpec(
        precision=("fp32",), model=str(directory), labels=("positive", "negative"), prompt="{text}"
    )
    write_client_files(plan(spec), (FP32,), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["transformers.js_config"]["use_external_data_format"] == {"model.onnx": True}
    assert "kv_cache_dtype" not in config["transformers.js_config"]


def _for_another_graph(config: dict[str, Any]) -> None:
    config["transformers.js_config"] = {"kv_cache_dtype": {"q4f16": "float16"}}
