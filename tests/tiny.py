"""A model small enough that a test can afford to break it, and the bundle that is built from it."""

from __future__ import annotations

import functools
import json
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma2Config, Gemma2ForCausalLM, GemmaConfig, GemmaForCausalLM

from models import GEMMA_MINI, harden
from trimexport import BuildSpec, QuestionSpec, Texts, build
from trimexport_runtime import read_manifest
from trimexport_runtime.bundle import Variant
from trimexport_runtime.tokenize import TextEncoder

PROMPT = "Review: {text}\nSentiment:"
PAIR = "Answer yes or no.\nQuery: {query}\nDocument: {document}\nRelevant:"
TEXTS = ("a gorgeous, witty movie", "dull", "", "two\nlines", "it never quite comes together")


def tiny_config(**options: Any) -> GemmaConfig:
    """Two layers of 32 with gemma-mini's vocabulary."""
    return GemmaConfig(
        **{
            "vocab_size": 8000,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 128,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
            "architectures": ["GemmaForCausalLM"],
            **options,
        }
    )


def save_tiny(
    directory: Path, dtype: torch.dtype = torch.float32, shard: str = "5GB", **options: Any
) -> Path:
    """Save such a model, with logits that differ from text to text, and gemma-mini's tokenizer."""
    model = harden(GemmaForCausalLM(tiny_config(**options)), seed=11)
    model.to(dtype).save_pretrained(directory, max_shard_size=shard)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(GEMMA_MINI / name, directory / name)
    return directory


@functools.cache
def tiny_root() -> Path:
    """A directory for what is made once per run; it goes when the run ends."""
    holder = tempfile.TemporaryDirectory(prefix="trimexport-tests-")
    _KEPT.append(holder)
    return Path(holder.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def tiny_model() -> Path:
    """The checkpoint, made once. Shared: copy it to change it."""
    return save_tiny(tiny_root() / "tiny")


@functools.cache
def tiny_bundle() -> Path:
    """The bundle made from it, built once. Shared: copy it to change it."""
    spec = BuildSpec(
        precision=("fp32",), model=str(tiny_model()), labels=("positive", "negative"), prompt=PROMPT
    )
    return build(spec, tiny_root() / "bundle", sample=Texts(TEXTS)).directory


@functools.cache
def capped_bundle() -> Path:
    """The bundle of a tiny Gemma 2 in several variants: its logits are capped, one of its three
    labels has two words. Built once. Shared: copy it to change it."""
    model = tiny_root() / "capped"
    config = Gemma2Config(
        **{
            **tiny_config().to_dict(),
            "architectures": ["Gemma2ForCausalLM"],
            "final_logit_softcapping": 4.0,
            "sliding_window": 64,
        }
    )
    harden(Gemma2ForCausalLM(config), seed=12).save_pretrained(model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(GEMMA_MINI / name, model / name)
    spec = BuildSpec(
        model=str(model),
        labels=("positive", "negative", "neutral"),
        verbalizers={"positive": ("good", "great")},
        prompt=PROMPT,
        precision=("int8", "fp32"),
        tensorrt=("fp16",),
    )
    output = tiny_root() / "capped-bundle"
    return build(spec, output, sample=Texts(TEXTS), engines=False).directory


@functools.cache
def odds_bundle() -> Path:
    """The bundle of the tiny model's log-odds, scaled and shifted, for CPUs and for TensorRT; one
    label has two words. Built once. Shared: copy it to change it."""
    spec = BuildSpec(
        model=str(tiny_model()),
        labels=("positive", "negative"),
        verbalizers={"positive": ("good", "great")},
        prompt=PROMPT,
        precision=("fp32",),
        tensorrt=("fp16",),
        score="log-odds",
        score_scale=0.5,
        score_shift=-1.5,
    )
    output = tiny_root() / "odds-bundle"
    return build(spec, output, sample=Texts(TEXTS), engines=False).directory


@functools.cache
def pair_bundle() -> Path:
    """The bundle of a tiny model for pairs, in four precisions. Built once. Shared: copy it to
    change it."""
    spec = BuildSpec(
        model=str(tiny_model()),
        labels=("yes", "no"),
        prompt=PAIR,
        precision=("fp32", "int8", "int4", "fp16"),
    )
    return build(spec, tiny_root() / "pair-bundle").directory


@functools.cache
def questions_bundle() -> Path:
    """A tiny bundle that asks two questions, one with two labels and one with three. Built once.
    Shared: copy it to change it."""
    spec = BuildSpec(
        model=str(tiny_model()),
        labels=("no", "yes"),
        prompt="Mail: {text}\n{question}\nAnswer:",
        precision=("fp32",),
        questions=(
            QuestionSpec("spam", "Does it advertise?"),
            QuestionSpec("mood", "How is it?", ("bad", "fair", "good")),
        ),
    )
    return build(spec, tiny_root() / "questions-bundle", sample=Texts(TEXTS)).directory


def spoil(bundle: Path, text: str) -> None:
    """Give the last token of a text NaN in the embedding of a bundle in float32."""
    token = TextEncoder.load(bundle, read_manifest(bundle)).encode(text).ids[-1]
    graph = bundle / "onnx" / "model.onnx"
    tensors = onnx.load(graph, load_external_data=False).graph.initializer
    (table,) = (tensor for tensor in tensors if tensor.dims[:1] == [8000])
    place = {entry.key: entry.value for entry in table.external_data}
    with graph.with_name(place["location"]).open("r+b") as stream:
        stream.seek(int(place["offset"]) + int(token) * table.dims[1] * 4)
        stream.write(struct.pack("<f", float("nan")))


def check_size(bundle: Path, variant: Variant) -> None:
    """It is the graph's and that of the data that it reads, whatever else their files hold."""
    graph = bundle / variant.graph
    model = onnx.load(graph, load_external_data=False)
    places = [{it.key: it.value for it in each.external_data} for each in model.graph.initializer]
    parts = {(it["location"], it["offset"]): int(it["length"]) for it in places if it}
    assert {f"onnx/{file}" for file, _ in parts} == {it for it in variant.files if "_data" in it}
    assert variant.bytes == graph.stat().st_size + sum(parts.values())


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    """Replace a JSON file by what `change` makes of it; None means it was changed in place."""
    value = json.loads(path.read_text(encoding="utf-8"))
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed), encoding="utf-8")


def edit_tensors(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a single-file checkpoint."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def header_length(path: Path) -> int:
    """The number of bytes that a safetensors file's header takes."""
    with path.open("rb") as stream:
        return int(struct.unpack("<Q", stream.read(8))[0])


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, by its relative path."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


PROGRAM = [sys.executable, "-c", "from trimexport.cli import main; main(prog_name='trimexport')"]
