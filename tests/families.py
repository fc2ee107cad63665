"""Every family that is supported, as small real models: one row each, for all tests of families.

Two layers with grouped heads, and a window of 12 positions where the family has windows: in the
first layer, or in both where the family does not mix. `harden` (models.py) does the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from models import SIZE, harden, save
from trained_tokenizers import save_tokenizer, special_ids

WINDOW = 12
_MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
_GPT2_SIZE = {
    "vocab_size": 8000,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_PER_LAYER = {"layer_types", "no_rope_layers"}
_GEMMA_HEADS = {"head_dim": 24, "query_pre_attn_scalar": 40}


def _nothing(directory: Path) -> None:
    pass


def _hub_gpt2_names(directory: Path) -> None:
    """As the hub has GPT-2: no `transformer.` prefix, and the causal mask among the weights."""
    import torch

    def renamed(tensors: dict[str, Any]) -> dict[str, Any]:
        own = {name.removeprefix("transformer."): value for name, value in tensors.items()}
        masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 256, 256) for i in range(2)}
        return {**own, **masks}

    _rewrite(directory, renamed)


def _transformers_multimodal_names(directory: Path) -> None:
    """As transformers names a multimodal model's parameters; `save_pretrained` writes the hub's."""
    _rewrite(
        directory,
        lambda tensors: {
            name.replace("language_model.model.", "model.language_model."): value
            for name, value in tensors.items()
        },
    )


def _phi_4_mini_s_settings(directory: Path) -> None:
    """As the hub has Phi-4-mini: scaling and base of the rotary frequencies, and how much of a head
    they turn, each in a place of its own. transformers 5 writes them as one."""
    path = directory / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    rope = config.pop("rope_parameters")
    factors = {key: rope[key] for key in ("short_factor", "long_factor")}
    config |= {key: rope[key] for key in ("rope_theta", "partial_rotary_factor")}
    config["rope_scaling"] = {"type": "longrope", **factors}
    path.write_text(json.dumps(config), encoding="utf-8")


def _rewrite(directory: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file = directory / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


@dataclass(frozen=True)
class Row:
    """A family: its transformers model type, what its configuration says besides the size, what is
    changed in the files that transformers saved, and which of `trained_tokenizers` it has instead
    of gemma-mini's."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    rewrite: Callable[[Path], None] = _nothing
    tokenizer: str | None = None

    @property
    def windowed(self) -> bool:
        """Whether a layer has a sliding window."""
        return "sliding_window" in self.options


FAMILIES = {
    "gemma": Row("gemma", {"head_dim": 24, "num_key_value_heads": 1}),
    "gemma2": Row(
        "gemma2",
        {
            **_GEMMA_HEADS,
            **_MIXED,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 4.0,
        },
    ),
    "gemma3": Row("gemma3_text", {**_GEMMA_HEADS, **_MIXED}),
    "gemma3-multimodal": Row("gemma3", {**_GEMMA_HEADS, **_MIXED}, _transformers_multimodal_names),
    "granite": Row(
        "granite",
        {
            "tie_word_embeddings": True,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.4,
            "residual_multiplier": 0.6,
            "logits_scaling": 2.5,
        },
    ),
    "llama3": Row(
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 5000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
        tokenizer="llama 3",
    ),
    "smollm": Row(
        "llama",
        {
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 9000.0, "factor": 2.0},
        },
    ),
    "smollm3": Row("smollm3", {"no_rope_layers": [1, 0]}),
    "mistral": Row("mistral", {"sliding_window": WINDOW, "head_dim": 24}),
    "olmo2": Row("olmo2"),
    "phi3": Row("phi3", {"sliding_window": WINDOW}),
    "phi3-longrope": Row(  # in all that it has a Phi-4-mini, but for its window and vocabulary
        "phi3",
        {
            "sliding_window": WINDOW,
            "tie_word_embeddings": True,
            "original_max_position_embeddings": 200,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 5000.0,
                "partial_rotary_factor": 0.75,
                "short_factor": [1.0, 1.2, 1.5, 1.8, 2.0, 2.5],
                "long_factor": [4.0, 4.5, 5.0, 5.5, 6.0, 7.0],
                "original_max_position_embeddings": 200,
            },
        },
        _phi_4_mini_s_settings,
    ),
    "qwen2": Row("qwen2", {"use_sliding_window": True, **_MIXED}, tokenizer="qwen"),
    "qwen3": Row("qwen3", {"use_sliding_window": True, "head_dim": 24, **_MIXED}, tokenizer="qwen"),
    "gpt2": Row("gpt2", {}, _hub_gpt2_names, tokenizer="gpt 2"),
    "gpt2-scaled": Row("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
}


def make(
    name: str,
    directory: Path,
    *,
    classifier: bool = False,
    layers: int = 2,
    seed: int = 0,
    **more: Any,
) -> Path:
    """Save a family's model in `directory`.

    Args:
        classifier: a fine-tuned classifier instead of a language model.
        layers: 2, or 1 where a test can do with less: the one with the window.
        more: further settings of the configuration.
    """
    row = FAMILIES[name]
    text = {**(_GPT2_SIZE if row.kind == "gpt2" else SIZE), **row.options}
    text["n_layer" if row.kind == "gpt2" else "num_hidden_layers"] = layers
    if row.tokenizer:
        text |= special_ids(row.tokenizer)
    for key in _PER_LAYER & text.keys():
        text[key] = text[key][:layers]
    if row.kind == "gemma3":  # an image model around a text model
        around = {"vision_config": _VISION, "mm_tokens_per_image": 1, "pad_token_id": 0}
        config = AutoConfig.for_model("gemma3", text_config=text, **around, **more)
    else:
        config = AutoConfig.for_model(row.kind, **{**text, **more})
    auto: Any = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    save(harden(auto.from_config(config), seed), directory)
    row.rewrite(directory)
    if row.tokenizer:
        save_tokenizer(row.tokenizer, directory)
    return directory
