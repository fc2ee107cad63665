"""A GGUF file's metadata as a transformers configuration.

The keys are those that llama.cpp's conversion writes
(https://github.com/ggml-org/llama.cpp/tree/master/conversion). What it does not write, because
llama.cpp knows it by heart, is said here too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from trimexport.errors import CheckpointError, UnsupportedError

from .gguf_blocks import GgufEntry, read_gguf_entry
from .gguf_header import GgufHeader
from .gguf_metadata import Metadata

Config = dict[str, Any]

_EMBEDDING = "token_embd.weight"
# Of the frequencies' scaling in Llama 3.1 and 3.2, of which a file holds the outcome alone.
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def gguf_config(header: GgufHeader) -> Config:
    """What would stand in the model's config.json.

    Raises:
        UnsupportedError: an architecture that is not supported, or one of its kinds.
        CheckpointError: a key or a tensor that every such file has is missing.
    """
    name = header.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UnsupportedError(
            f"{header.file} is of llama.cpp's architecture {name}; of GGUF files, "
            f"{', '.join(ARCHITECTURES)} are supported"
        )
    made = ARCHITECTURES[name]
    metadata = Metadata(header, name)
    if metadata.get("expert_count", int, 0):
        raise UnsupportedError(
            f"{header.file} is a mixture of experts ({name}.expert_count), which cannot be built"
        )
    _require(header, _EMBEDDING)
    layers, tensors = metadata.get("block_count", int), len(header.tensors)
    if layers > tensors:
        raise CheckpointError(
            f"{header.file} says that it has {layers:,} layers and holds {tensors} tensors; "
            "download it again"
        )
    return {
        "architectures": [made.architecture],
        "model_type": made.model_type,
        "vocab_size": header.tensors[_EMBEDDING].shape[0],
        "tie_word_embeddings": "output.weight" not in header.tensors,
        **_special_tokens(header),
        **made.config(metadata),
    }


def _require(header: GgufHeader, tensor: str) -> None:
    if tensor not in header.tensors:
        raise CheckpointError(f"{header.file} lacks the tensor {tensor}; download it again")


def _special_tokens(header: GgufHeader) -> Config:
    """The ids of the tokens that begin and end, None where the file names none: transformers'
    defaults are other models'."""

    def known(key: str) -> int | None:
        value = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        rows = header.tensors[_EMBEDDING].shape[0]
        return value if isinstance(value, int) and value < rows else None

    ends = [it for it in (known("eos"), known("eot"), known("eom")) if it is not None]
    ends = list(dict.fromkeys(ends))
    return {
        "bos_token_id": known("bos"),
        "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
        "pad_token_id": known("padding"),
    }


def _turned(it: Metadata) -> Config:
    """A decoder whose rotary embedding turns whole heads."""
    return _decoder(it) | {"rope_parameters": _rope(it)}


def _decoder(it: Metadata) -> Config:
    """What all but GPT-2 have."""
    heads = it.get("attention.head_count", int)
    return {
        "max_position_embeddings": it.get("context_length", int),
        "hidden_size": it.get("embedding_length", int),
        "intermediate_size": it.get("feed_forward_length", int),
        "num_hidden_layers": it.get("block_count", int),
        "num_attention_heads": heads,
        "num_key_value_heads": it.get("attention.head_count_kv", int, heads),
        "head_dim": it.head_dim,
        "rms_norm_eps": it.get("attention.layer_norm_rms_epsilon", float),
    }


def _rope(it: Metadata) -> Config:
    """The rotary frequencies."""
    base = {"rope_theta": it.get("rope.freq_base", float, 10_000.0)}
    turned = it.get("rope.dimension_count", int, it.head_dim)
    if turned != it.head_dim:
        raise UnsupportedError(
            f"{it.header.file} turns {turned} of {it.head_dim} numbers of a head "
            f"({it.prefix}.rope.dimension_count), which {it.prefix} models of transformers do not"
        )
    kind = it.get("rope.scaling.type", str, "none")
    if "rope_freqs.weight" in it.header.tensors:
        return base | _llama3(it, base["rope_theta"])
    if kind == "none":
        return base | {"rope_type": "default"}
    if kind == "linear":
        return base | {"rope_type": "linear", "factor": _factor(it)}
    if kind == "yarn":
        original = it.get("rope.scaling.original_context_length", int)
        return base | {
            "rope_type": "yarn",
            "factor": _factor(it),
            "original_max_position_embeddings": original,
        }
    raise UnsupportedError(
        f"{it.header.file} scales its rotary frequencies by {kind} "
        f"({it.prefix}.rope.scaling.type); none, linear and yarn can be built"
    )


def _factor(it: Metadata) -> float:
    """By how much the context was made longer, which divides frequencies."""
    factor = it.get("rope.scaling.factor", float)
    if not 0 < factor < math.inf:
        raise UnsupportedError(
            f"{it.header.file} scales its rotary frequencies by {factor:g} "
            f"({it.prefix}.rope.scaling.factor); it has to be above zero and finite"
        )
    return factor


def _llama3(it: Metadata, base: float) -> Config:
    """Llama 3.1's scaling, by the factors of the frequencies that a file holds instead of it.

    Raises:
        UnsupportedError: it is not the scaling of any Llama that was published.
    """
    stored = _numbers(it, "rope_freqs.weight")
    factor = float(stored.max())
    waves = 2 * math.pi * base ** (torch.arange(0, it.head_dim, 2) / it.head_dim)
    low, high, length = _LLAMA3.values()
    smooth = ((length / waves - low) / (high - low)).clamp(0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if stored.shape != expected.shape or not torch.allclose(stored, expected, rtol=1e-4):
        raise UnsupportedError(
            f"rope_freqs.weight of {it.header.file} divides the rotary frequencies otherwise than "
            "Llama 3.1 does; only its scaling can be built"
        )
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}


def _numbers(it: Metadata, name: str) -> torch.Tensor:
    """A small tensor that transformers has in its configuration."""
    _require(it.header, name)
    entry = it.header.tensors[name]
    return read_gguf_entry(GgufEntry(**vars(entry)), name).flatten()


def _llama(it: Metadata) -> Config:
    tensors = it.header.tensors
    return _turned(it) | {
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in tensors,
    }


def _qwen3(it: Metadata) -> Config:
    return _turned(it) | {"attention_bias": "blk.0.attn_q.bias" in it.header.tensors}


def _smollm3(it: Metadata) -> Config:
    """llama.cpp knows by heart that every fourth layer has no rotary embedding."""
    layers = it.get("block_count", int)
    return _llama(it) | {"no_rope_layers": [int((i + 1) % 4 != 0) for i in range(layers)]}


def _granite(it: Metadata) -> Config:
    """Granite's multipliers, which llama.cpp calls scales; by the one of the logits both divide."""
    scale = it.get("attention.scale", float, 0.0)  # 0 stands for the usual one there
    return _llama(it) | {
        "embedding_multiplier": it.get("embedding_scale", float, 1.0),
        "attention_multiplier": scale or it.head_dim**-0.5,
        "residual_multiplier": it.get("residual_scale", float, 1.0),
        "logits_scaling": it.get("logit_scale", float),
    }


def _phi3(it: Metadata) -> Config:
    """Phi-3 turns a part of each head, and scales by factors that the file has as tensors."""
    dimensions = it.get("rope.dimension_count", int, it.head_dim)
    rope: Config = {
        "rope_type": "default",
        "rope_theta": it.get("rope.freq_base", float, 10_000.0),
        "partial_rotary_factor": dimensions / it.head_dim,
    }
    context = it.get("context_length", int)
    original = it.get("rope.scaling.original_context_length", int, context)
    if "rope_factors_short.weight" in it.header.tensors:
        rope |= {
            "rope_type": "longrope",
            "short_factor": _numbers(it, "rope_factors_short.weight").tolist(),
            "long_factor": _numbers(it, "rope_factors_long.weight").tolist(),
            "original_max_position_embeddings": original,
        }
    window = it.get("attention.sliding_window", int, 0)
    return _decoder(it) | {
        "rope_parameters": rope,
        "original_max_position_embeddings": original,
        "sliding_window": window or None,
    }


def _gemma(it: Metadata) -> Config:
    return _turned(it) | {"tie_word_embeddings": True}


def _gemma2(it: Metadata) -> Config:
    return _gemma(it) | {
        "sliding_window": it.get("attention.sliding_window", int, 4096),
        "attn_logit_softcapping": it.get("attn_logit_softcapping", float, 50.0),
        "final_logit_softcapping": it.get("final_logit_softcapping", float, 30.0),
        "query_pre_attn_scalar": _scale(it, layers_of_27b=46),
    }


def _gemma3(it: Metadata) -> Config:
    """Every sixth layer sees everything, and has rotary frequencies of its own; without a window
    all do."""
    layers, every = it.get("block_count", int), 1
    if it.has("attention.sliding_window"):
        every = it.get("attention.sliding_window_pattern", int, 6)
    near = {
        "rope_type": "default",
        "rope_theta": it.get("rope.freq_base_swa", float, 10_000.0),
    }
    cap = "final_logit_softcapping"
    return _gemma(it) | {
        "sliding_window": it.get("attention.sliding_window", int, 4096),
        "layer_types": [
            "sliding_attention" if (i + 1) % every else "full_attention" for i in range(layers)
        ],
        "rope_parameters": {"full_attention": _rope(it), "sliding_attention": near},
        "query_pre_attn_scalar": _scale(it, layers_of_27b=62),
        cap: it.get(cap, float) if it.has(cap) else None,
    }


def _scale(it: Metadata, layers_of_27b: int) -> int:
    """By what attention scores are scaled: the width of a head, and in the largest models the
    hidden size by the number of heads. llama.cpp knows these by their number of layers."""
    if it.get("block_count", int) == layers_of_27b:
        return it.get("embedding_length", int) // it.get("attention.head_count", int)
    return it.head_dim


def _gpt2(it: Metadata) -> Config:
    return {
        "n_positions": it.get("context_length", int),
        "n_embd": it.get("embedding_length", int),
        "n_inner": it.get("feed_forward_length", int),
        "n_layer": it.get("block_count", int),
        "n_head": it.get("attention.head_count", int),
        "layer_norm_epsilon": it.get("attention.layer_norm_epsilon", float),
    }


@dataclass(frozen=True)
class _Architecture:
    """What transformers calls an architecture of llama.cpp's, and how it is configured."""

    architecture: str
    model_type: str
    config: Callable[[Metadata], Config]


ARCHITECTURES = {
    "gemma": _Architecture("GemmaForCausalLM", "gemma", _gemma),
    "gemma2": _Architecture("Gemma2ForCausalLM", "gemma2", _gemma2),
    "gemma3": _Architecture("Gemma3ForCausalLM", "gemma3_text", _gemma3),
    "granite": _Architecture("GraniteForCausalLM", "granite", _granite),
    "llama": _Architecture("LlamaForCausalLM", "llama", _llama),  # and Mistral
    "phi3": _Architecture("Phi3ForCausalLM", "phi3", _phi3),
    "qwen2": _Architecture("Qwen2ForCausalLM", "qwen2", _turned),
    "qwen3": _Architecture("Qwen3ForCausalLM", "qwen3", _qwen3),
    "smollm3": _Architecture("SmolLM3ForCausalLM", "smollm3", _smollm3),
    "gpt2": _Architecture("GPT2LMHeadModel", "gpt2", _gpt2),
}
