"""Small real models for the tests, hard on purpose.

A model with transformers' default weights gives logits so small that a wrong mask hides under any
tolerance. These have weights scaled so that attention is sharp and the logits' standard deviation
is above 1 (each test that relies on it asserts it).
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    pipeline,
)

from trimexport_runtime import Manifest
from trimexport_runtime.tokenize import TextEncoder

ROOT = Path(__file__).resolve().parents[1]
GEMMA_MINI = ROOT / "models" / "gemma-mini"
DATA = Path(os.environ.get("TRIMEXPORT_DATA") or ROOT / "data")

TEXTS = (
    "a gorgeous, witty, seductive movie",
    "dull",
    "",
    "Oil prices rose <b>again</b> on Monday &amp; fell on Tuesday.\nNobody knows why.",
    "it 's not bad , exactly , just twenty minutes too long , and the songs do not help",
    "  two spaces first, 日本語 😀 and a tab\there",
    "x " * 60,
)


# Of the small models, with gemma-mini's vocabulary.
SIZE = {
    "vocab_size": 8000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}


def needs_data(*parts: str) -> Path:
    """A file of the development data; the test is skipped where it is absent."""
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not in TRIMEXPORT_DATA ({DATA})")
    return path


def read_jsonl(path: Path) -> list[dict[str, str]]:
    """The rows of a JSON-lines file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def tokenizer_definition() -> dict[str, Any]:
    """gemma-mini's tokenizer.json, to change and save elsewhere."""
    return json.loads((GEMMA_MINI / "tokenizer.json").read_text(encoding="utf-8"))


def gemma(seed: int = 0, **options: Any) -> GemmaForCausalLM:
    """A Gemma 1: one key/value head for four, tied embeddings."""
    config = GemmaConfig(
        **{
            **SIZE,
            "num_hidden_layers": 3,
            "num_key_value_heads": 1,
            "head_dim": 24,
            **options,
        }
    )
    return harden(GemmaForCausalLM(config), seed)


def llama(seed: int = 0, **options: Any) -> LlamaForCausalLM:
    """A Llama: grouped heads, an output layer of its own, biases in attention and MLP."""
    config = LlamaConfig(
        **{
            **SIZE,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": False,
            **options,
        }
    )
    return harden(LlamaForCausalLM(config), seed)


def harden(model: Any, seed: int) -> Any:
    """Scale the weights: sharp attention, norms far from one, logits with a deviation above 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(_hardened(name, noise, model.config.model_type))
    return model.eval()


def _hardened(name: str, noise: torch.Tensor, kind: str) -> torch.Tensor:
    """A parameter's new value, made from normal noise of its shape."""
    if any(part in name for part in ("embed", "lm_head", "score", "wte", "wpe")):
        return 0.5 * noise
    if "norm" in name or re.search(r"ln_\w+\.weight", name):
        centre = 0.0 if kind.startswith("gemma") else 1.0
        if "q_norm" in name or "k_norm" in name:  # they undo what the projections do
            centre += 0.5
        if kind.startswith(("gemma2", "gemma3")) and "post_" in name:  # so do these
            centre += 3.0
        return centre + 0.3 * noise
    if noise.dim() != 2:
        return 0.2 * noise
    inputs = noise.shape[0] if kind == "gpt2" else noise.shape[1]  # GPT-2 stores [in, out]
    gain = 1.0
    if any(part in name for part in ("q_proj", "k_proj", "qkv_proj", "c_attn")):
        gain = 2.0
    if any(part in name for part in ("o_proj", "down_proj", "c_proj")):
        gain = 4.0  # what is read must outweigh the last token's own embedding
    return gain * noise / inputs**0.5


def save(
    model: PreTrainedModel,
    directory: Path,
    *,
    dtype: torch.dtype = torch.float32,
    shard: str = "5GB",
    dummy_prefix: bool = False,
) -> Path:
    """Save a model with gemma-mini's tokenizer.

    Args:
        dummy_prefix: give the tokenizer Llama 2's habit of writing a space before every string.
    """
    model.to(dtype).save_pretrained(directory, max_shard_size=shard)
    model.to(torch.float32)
    definition = tokenizer_definition()
    if dummy_prefix:
        prepend = {"type": "Prepend", "prepend": "▁"}
        definition["normalizer"] = {
            "type": "Sequence",
            "normalizers": [prepend, definition["normalizer"]],
        }
        definition["added_tokens"] = [t for t in definition["added_tokens"] if t["special"]]
    (directory / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
    config = (GEMMA_MINI / "tokenizer_config.json").read_text(encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(config, encoding="utf-8")
    return directory


class Untrimmed:
    """The reference, by transformers alone: the joined string in, full-vocabulary logits out."""

    def __init__(self, directory: Path, window: int | None = None) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        config = AutoConfig.from_pretrained(directory)
        if window is not None:
            config.get_text_config().sliding_window = window
        # sdpa leaves out Gemma 2's soft-cap of the attention
        self.model = AutoModelForCausalLM.from_pretrained(
            directory, config=config, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    def ids(self, text: str) -> list[int]:
        """Token ids of a whole string, bos included."""
        return list(self.tokenizer(text)["input_ids"])

    def logits(self, ids: list[int]) -> torch.Tensor:
        """Full-vocabulary logits after the last of `ids`, float32 [vocabulary]."""
        with torch.no_grad():
            return self.model(torch.tensor([ids])).logits[0, -1]

    def logits_of(self, rows: list[list[int]], tokens: list[int]) -> npt.NDArray[np.float32]:
        """The same at `tokens`, for each row by itself: float32 [rows, tokens]."""
        return torch.stack([self.logits(row)[tokens] for row in rows]).numpy()


def pipeline_logits(directory: Path, texts: list[str]) -> npt.NDArray[np.float64]:
    """What transformers' own pipeline says of a fine-tuned classifier's labels, in their order, as
    log-probabilities [texts, labels]."""
    classify = pipeline("text-classification", model=str(directory), top_k=None)
    labels = classify.model.config.id2label
    answers = (classify([text])[0] for text in texts)
    rows = [{item["label"]: item["score"] for item in answer} for answer in answers]
    return np.log(np.array([[row[labels[i]] for i in sorted(labels)] for row in rows]))


def segments_without_gap(
    prompt: str, judge: Untrimmed, manifest: Manifest, bundle: Path
) -> tuple[list[str], list[list[int]]]:
    """Texts whose joined ids are those of the segments (most are), and those ids."""
    encoder = TextEncoder.load(bundle, manifest)
    texts, ids = [], []
    for text in TEXTS:
        whole = judge.ids(prompt.replace("{{", "{").replace("}}", "}").replace("{text}", text))
        middle = encoder.encode(text).ids.tolist()
        own = [*manifest.prompt.prefix_ids, *middle, *manifest.prompt.suffix_ids]
        if whole == own and len(own) > 1:
            texts.append(text)
            ids.append(own)
    assert len(texts) >= 4, "the segments should agree with the joined string on most texts"
    return texts, ids


def without_one(row: list[int], place: int) -> list[int]:
    """A mutant: the prompt without one of its tokens."""
    return row[:place] + row[place + 1 :]
