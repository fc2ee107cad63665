"""Trained prompts that are damaged, unfinished or for another model or task."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from trimexport import CheckpointError, UnsupportedError
from trimexport.source.adapter import merge_adapter
from trimexport.source.checkpoint import Checkpoint, open_checkpoint

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
TENSOR = "prompt_embeddings"
SOFT = {
    "peft_type": "PROMPT_TUNING",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "org/the-model",
    "num_virtual_tokens": 3,
}
KEYS = {  # of tiny's two layers with one head of 16
    **SOFT,
    "peft_type": "PREFIX_TUNING",
    "num_layers": 2,
    "num_attention_heads": 1,
    "token_dim": 16,
}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A soft prompt of the tiny Gemma, to break."""
    return write(tmp_path / "adapter", SOFT, {TENSOR: torch.ones(3, 32)})


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Trained keys and values of the tiny Gemma, to break."""
    return write(tmp_path / "adapter", KEYS, {TENSOR: torch.ones(3, 64)})


def write(directory: Path, settings: dict[str, object], tensors: dict[str, torch.Tensor]) -> Path:
    directory.mkdir()
    (directory / CONFIG).write_text(json.dumps(settings), encoding="utf-8")
    save_file(tensors, directory / WEIGHTS)
    return directory


def configure(adapter: Path, **change: object) -> None:
    tiny.edit_json(adapter / CONFIG, lambda it: it.update(change))


def opened(adapter: Path, base: Path) -> Checkpoint:
    return merge_adapter(open_checkpoint(base, "the-base", None), adapter, str(adapter))


def test_the_ones_that_are_broken_below_are_taken(
    tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    keys = write(tmp_path / "keys", KEYS, {TENSOR: torch.ones(3, 64)})
    assert opened(adapter, tiny_model).virtual_tokens == 3
    assert opened(keys, tiny_model).virtual_tokens == 3


Change = Callable[[Path], None]


def stored(**tensors: torch.Tensor) -> Change:
    return lambda adapter: save_file(tensors, adapter / WEIGHTS)


def with_encoder(adapter: Path) -> None:
    save_file({"prompt_encoder.default.embedding.weight": torch.ones(3, 32)}, adapter / WEIGHTS)


def with_another(adapter: Path) -> None:
    tensors = {**load_file(adapter / WEIGHTS), "base_model.score.weight": torch.ones(2, 32)}
    save_file(tensors, adapter / WEIGHTS)


TRAINED_ON = (
    "it was trained on org/the-model, the checkpoint is the-base (GemmaForCausalLM); give the "
    "adapter's own model with --model"
)
OF_ANOTHER: dict[str, tuple[Change, str]] = {
    "width": (
        stored(prompt_embeddings=torch.ones(3, 48)),
        "is for another model: its virtual tokens are 48 wide, the checkpoint's are 32; "
        + TRAINED_ON,
    ),
    "count": (
        stored(prompt_embeddings=torch.ones(4, 32)),
        "says num_virtual_tokens 3 in adapter_config.json, and its prompt_embeddings is [4, 32]; "
        "copy the adapter again",
    ),
    "none": (
        stored(prompt_embeddings=torch.ones(0, 32)),
        "its prompt_embeddings is [0, 32]; copy the adapter again",
    ),
    "unsaved-encoder": (
        with_encoder,
        "lacks its virtual tokens, prompt_embeddings, and has the encoder that makes them "
        "(prompt_encoder.default.embedding.weight); write them with peft's save_pretrained",
    ),
    "no-tokens": (
        stored(other=torch.ones(1)),
        "lacks its virtual tokens, prompt_embeddings, and has no such tensor; write them with",
    ),
    "no-such-parameter": (
        with_another,
        f"is for another model: there is no score.weight; {TRAINED_ON}",
    ),
    "not-finite": (
        stored(prompt_embeddings=torch.full((3, 32), torch.nan)),
        "take an earlier state of the adapter",
    ),
}


@pytest.mark.parametrize("case", OF_ANOTHER)
def test_a_soft_prompt_that_does_not_fit(tiny_model: Path, adapter: Path, case: str) -> None:
    change, message = OF_ANOTHER[case]
    change(adapter)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        opened(adapter, tiny_model)


@pytest.mark.parametrize(
    ("setting", "value", "theirs"),
    [
        ("num_layers", 4, "4 layers and 1 heads, 16 numbers"),
        ("num_attention_heads", 2, "2 layers and 2 heads, 16 numbers"),
        ("token_dim", 32, "2 layers and 1 heads, 32 numbers"),
        ("num_layers", None, "None layers and 1 heads, 16 numbers"),
    ],
)
def test_keys_of_other_layers_or_heads(
    tiny_model: Path, keys: Path, setting: str, value: object, theirs: str
) -> None:
    configure(keys, **{setting: value})
    message = (
        f"is for another model: its keys and values are of {theirs} in all heads (num_layers, "
        "num_attention_heads, token_dim in adapter_config.json; the tensor has 64 columns), the "
        f"checkpoint's of 2, 1 and 16; {TRAINED_ON}"
    )
    with pytest.raises(CheckpointError, match=re.escape(message)):
        opened(keys, tiny_model)


def test_keys_whose_tensor_has_other_columns(tiny_model: Path, keys: Path) -> None:
    save_file({TENSOR: torch.ones(3, 32)}, keys / WEIGHTS)
    with pytest.raises(CheckpointError, match=re.escape("the tensor has 32 columns")):
        opened(keys, tiny_model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"task_type": "SEQ_2_SEQ_LM"},
            "was trained for SEQ_2_SEQ_LM (task_type in adapter_config.json); trained prompts are "
            "taken of CAUSAL_LM and SEQ_CLS, so train it for one of these",
        ),
        ({"task_type": None}, "was trained for no task (task_type in adapter_config.json)"),
        (
            {"task_type": "SEQ_CLS"},
            "was trained for SEQ_CLS (task_type in adapter_config.json), and the-base is a "
            "GemmaForCausalLM, which has no output layer for the adapter's labels; load "
            "org/the-model with AutoModelForSequenceClassification and its id2label, save model "
            "and tokenizer, and give that directory with --model",
        ),
        (
            {"gated": 2},
            "has gated = 2 in adapter_config.json, which PROMPT_TUNING is not known to have here; "
            "save it with the version of peft that this release was tested with",
        ),
        (
            {"peft_type": "MULTITASK_PROMPT_TUNING"},
            "is of the kind MULTITASK_PROMPT_TUNING (peft_type in adapter_config.json); LORA can "
            "be merged here, and PROMPT_TUNING, P_TUNING, PREFIX_TUNING put before the prompt",
        ),
    ],
)
def test_another_task_or_method(
    tiny_model: Path, adapter: Path, settings: dict[str, object], message: str
) -> None:
    configure(adapter, **settings)
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        opened(adapter, tiny_model)


def test_more_tokens_than_the_model_has(tiny_model: Path, adapter: Path) -> None:
    more = {"base_model.model.embed_tokens.weight": torch.ones(8001, 32)}
    save_file({**load_file(adapter / WEIGHTS), **more}, adapter / WEIGHTS)
    message = (
        "was trained with 1 more tokens than the 8,000 that the-base has "
        "(model.embed_tokens.weight); resize the model's embedding as the training did "
        "(resize_token_embeddings), train the prompt on that model, and give its directory"
    )
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        opened(adapter, tiny_model)


def test_half_of_a_tied_embedding(tiny_model: Path, adapter: Path) -> None:
    half = {"base_model.model.embed_tokens.weight": torch.ones(8000, 32)}
    save_file({**load_file(adapter / WEIGHTS), **half}, adapter / WEIGHTS)
    message = (
        "set tie_word_embeddings to false in its configuration, train the prompt on that model, "
        "and give its directory with --model"
    )
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        opened(adapter, tiny_model)


def test_an_adapter_whose_saving_did_not_finish(tiny_model: Path, adapter: Path) -> None:
    weights = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(weights[:-40])
    with pytest.raises(CheckpointError, match="is truncated or damaged"):
        opened(adapter, tiny_model)
    (adapter / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=f"has no {WEIGHTS}; --adapter takes the directory"):
        opened(adapter, tiny_model)
    (adapter / CONFIG).unlink()
    with pytest.raises(CheckpointError, match=f"has no {CONFIG}; --adapter takes the directory"):
        opened(adapter, tiny_model)
