"""Configurations that do not say what the checkpoint is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import families
import tiny
from trimexport import CheckpointError, TrimexportError, UnsupportedError
from trimexport.source.checkpoint import open_checkpoint
from trimexport.source.empty_model import make_skeleton, parameter_names


def refused(directory: Path, kind: type[TrimexportError], message: str, **change: Any) -> None:
    tiny.edit_json(directory / "config.json", lambda it: it.update(change))
    with pytest.raises(kind, match=message):
        open_checkpoint(directory, "the-model", None)


@pytest.mark.parametrize("model_type", ["granite", "llama"])
def test_another_family_under_a_supported_name(tiny_copy: Path, model_type: str) -> None:
    """transformers goes by model_type, and Granite's output layer has a scale of its own."""
    message = f"the-model names GemmaForCausalLM and model_type {model_type}, which is another fam"
    refused(tiny_copy, UnsupportedError, message, model_type=model_type)


def test_another_family_s_classifier(tmp_path: Path) -> None:
    directory = families.make("llama3", tmp_path / "model", classifier=True, layers=1)
    refused(directory, UnsupportedError, "and model_type mistral", model_type="mistral")


@pytest.mark.parametrize("part", [None, "text_config"])
def test_attention_that_is_not_causal(tiny_copy: Path, part: str | None) -> None:
    change = {"is_causal": False}
    message = r"attends in both directions \(is_causal in config\.json\)"
    refused(tiny_copy, UnsupportedError, message, **({part: change} if part else change))


@pytest.mark.parametrize("change", [{"num_hidden_layers": 0}, {"text_config": "x"}])
def test_what_is_no_configuration(tiny_copy: Path, change: dict[str, Any]) -> None:
    refused(tiny_copy, CheckpointError, "cannot be read as a transformers configuration", **change)


def test_a_multimodal_model_is_tied_as_the_whole_configuration_says(tmp_path: Path) -> None:
    """Its text part says so too, and may say otherwise; transformers follows the outer one."""
    directory = families.make("gemma3-multimodal", tmp_path / "model", layers=1)
    tiny.edit_json(directory / "config.json", lambda it: it.update(tie_word_embeddings=False))
    own = torch.randn(8000, 64)
    tiny.edit_tensors(directory, lambda it: it.update({"language_model.lm_head.weight": own}))
    checkpoint = open_checkpoint(directory, "m", None)
    names = parameter_names(make_skeleton(checkpoint, "sdpa"), checkpoint)
    assert names["lm_head.weight"] == "lm_head.weight"
    assert torch.equal(checkpoint.read("lm_head.weight"), own)


@pytest.mark.parametrize("part", [None, "text_config"])
@pytest.mark.parametrize(
    ("key", "most"), [("num_hidden_layers", "20"), ("hidden_size", "8,000"), ("head_dim", "8,000")]
)
def test_a_far_larger_model_than_the_tensors(
    tiny_copy: Path, part: str | None, key: str, most: str
) -> None:
    """Without this, transformers would make two billion layers, or a table of 8 GB."""
    change: dict[str, Any] = {key: 2**31}
    message = rf"says {key} 2,147,483,648, and its 20 tensors have {most} at most; the two do not"
    refused(tiny_copy, CheckpointError, message, **({part: change} if part else change))
