"""Small real models for the tests, hard on purpose.

A model with transformers' default weights gives logits so small that a wrong mask hides under any
tolerance. These have weights scaled so that attention is sharp and the logits' standard deviation
is above 1 (each test that relies on it asserts it).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

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
            "vocab_size": 8000,
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 24,
            "max_position_embeddings": 256,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
            **options,
        }
    )
    return harden(GemmaForCausalLM(config), seed)


def llama(seed: int = 0, **options: Any) -> LlamaForCausalLM:
    """A Llama: grouped heads, an output layer of its own, biases in attention and MLP."""
    config = LlamaConfig(
        **{
            "vocab_size": 8000,
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": False,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
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
            if "embed" in name or "lm_head" in name:
                parameter.copy_(0.5 * noise)
            elif "norm" in name:
                centre = 0.0 if model.config.model_type.startswith("gemma") else 1.0
                parameter.copy_(centre + 0.3 * noise)
            elif parameter.dim() == 2:
                gain = 2.0 if "q_proj" in name or "k_proj" in name else 1.0
                if "o_proj" in name or "down_proj" in name:
                    gain = 4.0  # what is read must outweigh the last token's own embedding
                parameter.copy_(gain * noise / parameter.shape[1] ** 0.5)
            else:
                parameter.copy_(0.2 * noise)
    return model.eval()


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

    def __init__(self, directory: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()

    def ids(self, text: str) -> list[int]:
        """Token ids of a whole string, bos included."""
        return list(self.tokenizer(text)["input_ids"])

    def logits(self, ids: list[int]) -> torch.Tensor:
        """Full-vocabulary logits after the last of `ids`, float32 [vocabulary]."""
        with torch.no_grad():
            return self.model(torch.tensor([ids])).logits[0, -1]
