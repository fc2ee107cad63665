"""Small models as GGUF files, written as llama.cpp's conversion writes them.

The names come from the `gguf` library's own table, and what the conversion does to the numbers and
to the configuration is written here anew, so that both are checked by something else.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import AutoModelForCausalLM

ARCHITECTURES = {"gemma3_text": "gemma3", "mistral": "llama"}  # of the others it is the model type
# Where a block of these types has its scales: float16, at these bytes.
_SCALES = {Kind.Q4_K: (0, 2), Kind.Q5_K: (0, 2), Kind.Q6_K: (208,)}


def write_gguf(
    directory: Path,
    file: Path,
    kind: Kind = Kind.F32,
    *,
    tokenizer: bool = True,
    per_file: int = 0,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """The model that transformers saved in `directory` as the GGUF `file`.

    Args:
        kind: of the matrices; what else there is stays float32.
        tokenizer: write the vocabulary too.
        per_file: tensors in each part, if there is to be more than one.
        metadata: further keys, those of the architecture without its name; None leaves one out.

    Returns:
        the file, or the first part.
    """
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    config = model.config
    name = ARCHITECTURES.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(file, name, split_max_tensors=per_file)
    keys = {**_keys(config), **(metadata or {})}
    for key, value in keys.items():
        if value is not None:
            whole = key.startswith(("general.", "tokenizer.", "split.", "adapter."))
            _add(writer, key if whole else f"{name}.{key}", value)
    if tokenizer:
        add_tokenizer(writer, directory, config.vocab_size)
    names = gguf.get_tensor_name_map(_number(name), config.num_hidden_layers)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    for own, value in model.state_dict().items():
        if own not in tied:
            theirs = names.get_name(own, (".weight", ".bias"))
            add_tensor(writer, theirs, _converted(own, value.numpy(), config), kind)
    for theirs, value in _factors(config).items():
        add_tensor(writer, theirs, value, kind)
    finish(writer)
    return file if not per_file else next(file.parent.glob(f"{file.stem}-00001-of-*.gguf"))


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tensor(
    writer: gguf.GGUFWriter, name: str, value: npt.NDArray[np.float32], kind: Kind
) -> None:
    """A tensor in float32, or a matrix in `kind`."""
    value = np.ascontiguousarray(value)
    if value.ndim < 2 or kind == Kind.F32:
        writer.add_tensor(name, value)
    elif kind == Kind.F16:
        writer.add_tensor(name, value.astype(np.float16))
    else:
        writer.add_tensor(name, blocks(value, kind), raw_dtype=kind)


def blocks(value: npt.NDArray[np.float32], kind: Kind) -> npt.NDArray[np.uint8]:
    """The matrix in blocks of `kind`; the library writes no K-quants, so theirs are any numbers of
    that type and have nothing to do with `value` but the shape."""
    if kind not in _SCALES:
        return gguf.quantize(value, kind)
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(value.size)
    found = random.integers(0, 256, (*value.shape[:-1], value.shape[-1] // numbers, size), np.uint8)
    for at in _SCALES[kind]:
        scales = random.uniform(1e-4, 1e-3, found.shape[:-1]).astype(np.float16)
        found[..., at : at + 2] = scales[..., None].view(np.uint8)
    return found.reshape(*value.shape[:-1], -1)


def add_tokenizer(writer: gguf.GGUFWriter, directory: Path, rows: int = 0) -> None:
    """The vocabulary of a tokenizer.json, pieces with scores or bytes with merges, filled up to the
    embedding's rows."""
    definition = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = dict(definition["model"]["vocab"])
    added = {token["id"]: token for token in definition["added_tokens"]}
    vocabulary |= {token["content"]: number for number, token in added.items()}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    assert [vocabulary[token] for token in tokens] == list(range(len(tokens)))
    known = len(tokens)
    tokens += [f"[PAD{i}]" for i in range(known, rows)]
    on_bytes = "ByteLevel" in json.dumps(definition["pre_tokenizer"])
    writer.add_tokenizer_model("gpt2" if on_bytes else "llama")
    writer.add_tokenizer_pre(_split(definition) if on_bytes else "default")
    writer.add_token_list([token.replace("▁", " ") if _blank(token) else token for token in tokens])
    types = [_type(token, added.get(i)) for i, token in enumerate(tokens[:known])]
    writer.add_token_types(types + [5] * (len(tokens) - known))
    if on_bytes:
        writer.add_token_merges([" ".join(pair) for pair in definition["model"]["merges"]])
    else:
        writer.add_token_scores([-float(i) for i in range(len(tokens))])
        writer.add_add_space_prefix("Prepend" in json.dumps(definition["normalizer"]))
    start = json.dumps(definition["post_processor"])
    for name in ("<bos>", "<|begin|>"):
        if name in vocabulary:
            writer.add_bos_token_id(vocabulary[name])
            writer.add_add_bos_token(name in start)
    for name in ("<eos>", "<|end|>"):
        if name in vocabulary:
            writer.add_eos_token_id(vocabulary[name])
    if "<pad>" in vocabulary:
        writer.add_pad_token_id(vocabulary["<pad>"])


def _blank(token: str) -> bool:
    """Gemma's files have the tokens of several spaces as spaces."""
    return len(token) > 1 and set(token) == {"▁"}


def _type(token: str, added: dict[str, Any] | None) -> int:
    if added is not None:
        return 3 if added["special"] else 4
    return 6 if re.fullmatch(r"<0x[0-9A-F]{2}>", token) else 1


def _split(definition: dict[str, Any]) -> str:
    text = json.dumps(definition["pre_tokenizer"])
    if "{1,3}" in text:
        return "llama-bpe"
    return "qwen2" if "Split" in text else "gpt-2"


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        writer.add_string(key, value)


def _number(name: str) -> int:
    return next(number for number, it in gguf.MODEL_ARCH_NAMES.items() if it == name)


def _rope(config: Any) -> dict[str, Any]:
    settings = config.rope_parameters
    return settings.get("full_attention", settings)


def _keys(config: Any) -> dict[str, Any]:
    """What the conversion writes of a configuration."""
    if config.model_type == "gpt2":
        return {
            "context_length": config.n_positions,
            "embedding_length": config.n_embd,
            "feed_forward_length": 4 * config.n_embd,
            "block_count": config.n_layer,
            "attention.head_count": config.n_head,
            "attention.layer_norm_epsilon": config.layer_norm_epsilon,
        }
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = _rope(config)
    keys = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "block_count": config.num_hidden_layers,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.freq_base": rope["rope_theta"],
    }
    kind = config.model_type
    if kind.startswith(("gemma2", "gemma3", "phi3")) and config.sliding_window:
        keys["attention.sliding_window"] = config.sliding_window
    if kind == "gemma2":
        keys["attn_logit_softcapping"] = config.attn_logit_softcapping
        keys["final_logit_softcapping"] = config.final_logit_softcapping
    if kind == "granite":
        keys["embedding_scale"] = config.embedding_multiplier
        keys["attention.scale"] = config.attention_multiplier
        keys["residual_scale"] = config.residual_multiplier
        keys["logit_scale"] = config.logits_scaling
    if kind in ("granite", "llama", "mistral", "phi3"):
        turned = int(rope.get("partial_rotary_factor", 1.0) * head)
        keys["rope.dimension_count"] = turned
        keys["vocab_size"] = config.vocab_size
    if rope["rope_type"] in ("linear", "yarn"):
        keys["rope.scaling.type"] = rope["rope_type"]
        keys["rope.scaling.factor"] = rope["factor"]
    if rope["rope_type"] == "yarn" or kind == "phi3":
        original = rope.get("original_max_position_embeddings", config.max_position_embeddings)
        keys["rope.scaling.original_context_length"] = original
    return keys


def _factors(config: Any) -> dict[str, npt.NDArray[np.float32]]:
    """The tensors by which rotary frequencies are divided."""
    if config.model_type == "gpt2":
        return {}
    rope = _rope(config)
    if rope["rope_type"] == "longrope":
        return {
            f"rope_factors_{it}.weight": np.array(rope[f"{it}_factor"], np.float32)
            for it in ("long", "short")
        }
    if rope["rope_type"] != "llama3":
        return {}
    head = config.head_dim
    found = []
    for index in range(0, head, 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (index / head)
        before, low = rope["original_max_position_embeddings"], rope["low_freq_factor"]
        high = rope["high_freq_factor"]
        if wave < before / high:
            found.append(1.0)
        elif wave > before / low:
            found.append(rope["factor"])
        else:
            smooth = (before / wave - low) / (high - low)
            found.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return {"rope_freqs.weight": np.array(found, np.float32)}


def _converted(name: str, value: npt.NDArray[np.float32], config: Any) -> Any:
    """What the conversion does to the numbers."""
    kind = config.model_type
    if kind.startswith("gemma") and name.endswith("norm.weight"):
        return value + 1
    if kind in ("granite", "llama", "mistral", "smollm3") and re.search(r"\.[qk]_proj\.", name):
        heads = config.num_attention_heads if ".q_proj" in name else config.num_key_value_heads
        apart = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
        return apart.swapaxes(1, 2).reshape(value.shape)
    if kind == "gpt2" and re.search(r"\.(c_attn|c_proj|c_fc)\.weight", name):
        return value.T
    return value
