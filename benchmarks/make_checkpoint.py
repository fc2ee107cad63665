"""Write a checkpoint of a real model's shape, with seeded random weights.

Speed, memory and file sizes depend on a model's shape and not on what it has learnt, so they are
measured on checkpoints that anybody can make:

    python benchmarks/make_checkpoint.py --shape gemma-2b --tokenizer DIR -o build/gemma-2b

The configuration is that of the model on the hub, the tensors are bfloat16 in safetensors shards,
written a block at a time: 18 layers of Gemma-2B are 5 GB on the disk and 0.2 GB in memory.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    Qwen3Config,
)

SHARD_BYTES = 2 * 10**9
BLOCK_ELEMENTS = 2**24
DEVIATION = 0.02  # of the matrices, as the models are initialised before their training
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")

_SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
SHAPES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "gemma-2b": (
        GemmaConfig,
        {
            "architectures": ["GemmaForCausalLM"],
            "vocab_size": 256_000,
            "hidden_size": 2048,
            "intermediate_size": 16_384,
            "num_hidden_layers": 18,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "max_position_embeddings": 8192,
            "hidden_activation": "gelu_pytorch_tanh",
        },
    ),
    "gemma2-2b": (
        Gemma2Config,
        {
            "architectures": ["Gemma2ForCausalLM"],
            "vocab_size": 256_000,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "max_position_embeddings": 8192,
        },
    ),
    "gemma3-270m": (
        Gemma3TextConfig,
        {
            "architectures": ["Gemma3ForCausalLM"],
            "vocab_size": 262_144,
            "hidden_size": 640,
            "intermediate_size": 2048,
            "num_hidden_layers": 18,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 512,
            "max_position_embeddings": 32_768,
        },
    ),
    "gemma3-1b": (
        Gemma3TextConfig,
        {
            "architectures": ["Gemma3ForCausalLM"],
            "vocab_size": 262_144,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_hidden_layers": 26,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 512,
            "max_position_embeddings": 32_768,
        },
    ),
    "qwen3-0.6b": (
        Qwen3Config,
        {
            "architectures": ["Qwen3ForCausalLM"],
            "vocab_size": 151_936,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "tie_word_embeddings": True,
            "max_position_embeddings": 40_960,
            "pad_token_id": 151_643,
            "bos_token_id": 151_643,
            "eos_token_id": 151_645,
        },
    ),
}


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written: its name and shape."""

    name: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return 2 * math.prod(self.shape)


@click.command()
@click.option("--shape", type=click.Choice(list(SHAPES)), required=True, help="Whose shape.")
@click.option("--layers", type=click.IntRange(min=1), help="How many layers.  [default: all]")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A directory whose tokenizer files are copied.",
)
@click.option("--seed", default=0, help="Of the random weights.", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(shape: str, layers: int | None, tokenizer: Path | None, seed: int, output: Path) -> None:
    """Write a checkpoint of a real model's shape, with seeded random weights."""
    kind, settings = SHAPES[shape]
    config = kind(**{**_SPECIAL, **settings}, dtype="bfloat16")
    if layers is not None:
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
    if output.exists():
        raise click.ClickException(f"{output} exists; remove it or name another directory")
    output.mkdir(parents=True)
    config.save_pretrained(output)
    if tokenizer is not None:
        copy_tokenizer(tokenizer, output)
    write_weights(tensors_of(config), output, seed)
    click.echo(str(output))


def tensors_of(config: Any) -> list[Tensor]:
    """The model's parameters in their order; a head that is tied to the embedding is none."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return [Tensor(name, tuple(value.shape)) for name, value in model.named_parameters()]


def write_weights(tensors: list[Tensor], directory: Path, seed: int) -> None:
    """Write the shards and their index (https://huggingface.co/docs/safetensors)."""
    shards = list(_shards(tensors))
    places = {}
    with click.progressbar(
        length=sum(tensor.bytes for tensor in tensors),
        label="weights",
        file=sys.stderr,
    ) as bar:
        for number, shard in enumerate(shards, start=1):
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            places.update({tensor.name: name for tensor in shard})
            with (directory / name).open("wb") as stream:
                stream.write(_header(shard))
                for tensor in shard:
                    for block in _blocks(tensor, seed):
                        stream.write(block.data)
                        bar.update(block.nbytes)
    total = sum(tensor.bytes for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _shards(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    shard: list[Tensor] = []
    for tensor in tensors:
        if shard and sum(item.bytes for item in shard) + tensor.bytes > SHARD_BYTES:
            yield shard
            shard = []
        shard.append(tensor)
    yield shard


def _header(shard: list[Tensor]) -> bytes:
    entries, offset = {}, 0
    for tensor in shard:
        span = [offset, offset + tensor.bytes]
        entries[tensor.name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": span}
        offset = span[1]
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _blocks(tensor: Tensor, seed: int) -> Iterator[np.ndarray]:
    """The tensor's numbers as the upper halves of float32, a block at a time. A tensor's numbers
    depend on its name and the seed alone, so fewer layers are the first of more."""
    generator = np.random.default_rng([seed, zlib.crc32(tensor.name.encode())])
    left = math.prod(tensor.shape)
    while left:
        block = generator.standard_normal(min(left, BLOCK_ELEMENTS), dtype=np.float32)
        block *= np.float32(DEVIATION)
        left -= len(block)
        yield (block.view(np.uint32) >> 16).astype(np.uint16)


def copy_tokenizer(source: Path, directory: Path) -> None:
    """Copy the tokenizer's files; transformers needs to be told the class where they do not."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
    settings = directory / "tokenizer_config.json"
    if not settings.exists():
        named = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
        text = {"tokenizer_class": "GemmaTokenizer", **named, "unk_token": "<unk>"}
        settings.write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
