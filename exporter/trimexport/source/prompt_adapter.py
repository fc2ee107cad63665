"""Adapters in peft's format that are a trained prompt: read, and held against the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimexport.errors import CheckpointError, UnsupportedError

from .adapter_config import CONFIG, NAMING
from .adapter_target import Target, check_finite
from .checkpoint import Checkpoint
from .low_rank import Adapter, weights_file
from .tensor_files import TensorEntry, read_header
from .trained_prompt import EMBEDDINGS, PREFIX_TUNING, TRAINED_PROMPTS, TrainedPrompt

_PREFIX = "base_model."
# What peft writes of an encoder that makes the virtual tokens, if another program than its
# save_pretrained stored the weights.
_ENCODER = "prompt_encoder."
_OTHERWISE = "train the prompt on that model, and give its directory with --model"
# Settings that say how training began or what it was done with, and those that are checked here.
_KNOWN = NAMING | {
    "peft_type",
    "num_virtual_tokens",
    "token_dim",
    "num_transformer_submodules",
    "num_attention_heads",
    "num_layers",
    "prompt_tuning_init",
    "prompt_tuning_init_text",
    "tokenizer_name_or_path",
    "tokenizer_kwargs",
    "encoder_reparameterization_type",
    "encoder_hidden_size",
    "encoder_num_layers",
    "encoder_dropout",
    "init_weights",
    "prefix_projection",
}


def put_before(
    checkpoint: Checkpoint, directory: Path, name: str, settings: Mapping[str, Any]
) -> Checkpoint:
    """The checkpoint with a trained prompt before every prompt, and with the output layer that was
    trained with it.

    Args:
        directory: the adapter's.
        name: its name in the manifest.
        settings: of its adapter_config.json.

    Raises:
        CheckpointError: a file is missing or damaged, a tensor holds NaN or infinity, or the
            adapter is for another model.
        UnsupportedError: the adapter is for another task, or has a setting that is not known.
    """
    for key, value in settings.items():
        if key not in _KNOWN and value not in (None, False, {}, []):
            raise UnsupportedError(
                f"the adapter {directory} has {key} = {json.dumps(value, allow_nan=False)} in "
                f"{CONFIG}, which {settings['peft_type']} is not known to have here; save it with "
                "the version of peft that this release was tested with"
            )
    base = settings.get("base_model_name_or_path") or None
    _check_task(settings.get("task_type"), directory, checkpoint, base)
    target = Target(directory, base, checkpoint, _OTHERWISE)
    entries = read_header(weights_file(directory))
    trained = _trained_prompt(entries, settings, target)
    whole = {}
    for key, entry in entries.items():
        check_finite(key, entry)
        if key != EMBEDDINGS:
            own, place = target.replacement(key.removeprefix(_PREFIX), entry)
            whole[own] = place
    adapter = Adapter(directory, name, base, {}, whole, trained)
    found = replace(checkpoint, tensors={**checkpoint.tensors, **whole}, adapter=adapter)
    target.refuse_half_of_a_tie(found, adapter)
    return found


def _check_task(task: object, directory: Path, checkpoint: Checkpoint, base: str | None) -> None:
    """Raise UnsupportedError for a task that no bundle is built for, or if adapter and checkpoint
    have different output layers."""
    if task not in ("CAUSAL_LM", "SEQ_CLS"):
        raise UnsupportedError(
            f"the adapter {directory} was trained for {task or 'no task'} (task_type in {CONFIG}); "
            "trained prompts are taken of CAUSAL_LM and SEQ_CLS, so train it for one of these"
        )
    if (task == "SEQ_CLS") == checkpoint.is_classifier:
        return
    problem = (
        f"the adapter {directory} was trained for {task} (task_type in {CONFIG}), and "
        f"{checkpoint.model} is a {checkpoint.architecture}"
    )
    if checkpoint.is_classifier:
        raise UnsupportedError(f"{problem}; give the model that it was trained on with --model")
    raise UnsupportedError(
        f"{problem}, which has no output layer for the adapter's labels; load {base or 'its base'} "
        "with AutoModelForSequenceClassification and its id2label, save model and tokenizer, and "
        "give that directory with --model"
    )


def _trained_prompt(
    entries: Mapping[str, TensorEntry], settings: Mapping[str, Any], target: Target
) -> TrainedPrompt:
    """The place of what was trained.

    Raises:
        CheckpointError: it is not there, or is not as wide as the model or as long as the settings
            say.
    """
    directory, kind = target.directory, settings["peft_type"]
    assert kind in TRAINED_PROMPTS
    entry = entries.get(EMBEDDINGS)
    if entry is None:
        encoder = [key for key in entries if _ENCODER in key]
        has = f"the encoder that makes them ({encoder[0]})" if encoder else "no such tensor"
        raise CheckpointError(
            f"the adapter {directory} lacks its virtual tokens, {EMBEDDINGS}, and has {has}; write "
            "them with peft's save_pretrained, on the model as it was trained"
        )
    tokens = settings.get("num_virtual_tokens")
    if len(entry.shape) != 2 or not entry.shape[0] or entry.shape[0] != tokens:
        raise CheckpointError(
            f"the adapter {directory} says num_virtual_tokens {tokens} in {CONFIG}, and its "
            f"{EMBEDDINGS} is {list(entry.shape)}; copy the adapter again"
        )
    config = target.checkpoint.config
    heads = config.num_attention_heads
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    if kind == PREFIX_TUNING:
        head = getattr(config, "head_dim", None) or config.hidden_size // heads
        _check_keys(entry, settings, target, kv_heads, int(head))
    elif entry.shape[1] != config.hidden_size:
        raise CheckpointError(
            f"the adapter {directory} is for another model: its virtual tokens are "
            f"{entry.shape[1]:,} wide, the checkpoint's are {config.hidden_size:,}; "
            f"{target.trained_on}"
        )
    return TrainedPrompt(kind, entry, config.num_hidden_layers, kv_heads)


def _check_keys(
    entry: TensorEntry, settings: Mapping[str, Any], target: Target, kv_heads: int, head: int
) -> None:
    """Raise CheckpointError if trained keys and values are of other layers or heads than the
    model's, even where there are as many numbers."""
    layers = target.checkpoint.config.num_hidden_layers
    theirs = [settings.get(key) for key in ("num_layers", "num_attention_heads", "token_dim")]
    own = [layers, kv_heads, kv_heads * head]
    if theirs == own and entry.shape[1] == layers * 2 * kv_heads * head:
        return
    raise CheckpointError(
        f"the adapter {target.directory} is for another model: its keys and values are of "
        f"{theirs[0]} layers and {theirs[1]} heads, {theirs[2]} numbers in all heads (num_layers, "
        f"num_attention_heads, token_dim in {CONFIG}; the tensor has {entry.shape[1]:,} columns), "
        f"the checkpoint's of {own[0]}, {own[1]} and {own[2]}; {target.trained_on}"
    )
