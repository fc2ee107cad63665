"""A real trained Llama that nobody here made: karpathy's 260K-parameter tinyllama.

It comes in llama2.c's own format, so the test converts it: the weights to safetensors through
transformers, the vocabulary to a tokenizer.json whose merges are the scores' order.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from models import Untrimmed, needs_data
from trimexport import BuildSpec, build
from trimexport_runtime import Classifier

PROMPT = "Once upon a time, {text}\nThe child was very"
TEXTS = (
    "there was a little girl named Lily. She had a big red ball.",
    "a boy went to the park with his mom. He was sad.",
    "the dog ran",
    "Tim lost his toy car and looked for it all day long. Then he found it under the bed.",
)


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama2.c rotates neighbouring pairs, transformers halves: reorder each head's rows."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.transpose(0, 2, 1, 3).reshape(rows, columns)


def read_model(path: Path) -> LlamaForCausalLM:
    """llama2.c format v0: seven int32, then the float32 tensors, kind by kind."""
    raw = path.read_bytes()
    dim, hidden, layers, heads, kv_heads, vocab, context = struct.unpack("7i", raw[:28])
    numbers = np.frombuffer(raw, dtype=np.float32, offset=28)
    head, place = dim // heads, 0

    def take(*shape: int) -> np.ndarray:
        nonlocal place
        size = int(np.prod(shape))
        place += size
        return numbers[place - size : place].reshape(shape)

    kv = kv_heads * head
    parts = {
        "embed": take(vocab, dim), "input": take(layers, dim), "q": take(layers, dim, dim),
        "k": take(layers, kv, dim), "v": take(layers, kv, dim), "o": take(layers, dim, dim),
        "post": take(layers, dim), "gate": take(layers, hidden, dim),
        "down": take(layers, dim, hidden), "up": take(layers, hidden, dim), "norm": take(dim),
    }  # fmt: skip
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=dim, intermediate_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=context,
        rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    state = {"model.embed_tokens.weight": parts["embed"], "model.norm.weight": parts["norm"]}
    for i in range(layers):
        layer = f"model.layers.{i}."
        state |= {
            layer + "input_layernorm.weight": parts["input"][i],
            layer + "self_attn.q_proj.weight": permuted(parts["q"][i], heads),
            layer + "self_attn.k_proj.weight": permuted(parts["k"][i], kv_heads),
            layer + "self_attn.v_proj.weight": parts["v"][i],
            layer + "self_attn.o_proj.weight": parts["o"][i],
            layer + "post_attention_layernorm.weight": parts["post"][i],
            layer + "mlp.gate_proj.weight": parts["gate"][i],
            layer + "mlp.down_proj.weight": parts["down"][i],
            layer + "mlp.up_proj.weight": parts["up"][i],
        }
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    model.load_state_dict(tensors, strict=False)
    return model


def read_tokenizer(path: Path) -> dict[str, Any]:
    """tok512.bin: a maximal length, then per piece a float32 score, a length and its bytes."""
    raw, place, pieces = path.read_bytes(), 4, []
    while place < len(raw):
        score, length = struct.unpack_from("fi", raw, place)
        pieces.append((raw[place + 8 : place + 8 + length].decode("utf-8"), score))
        place += 8 + length
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    names += [text.replace(" ", "▁") for text, _ in pieces[len(names) :]]
    scores = {name: score for name, (_, score) in zip(names, pieces, strict=True)}
    vocab = {name: i for i, name in enumerate(names)}
    merges = [
        (scores[name], [name[:cut], name[cut:]])
        for name in names[259:]
        for cut in range(1, len(name))
        if name[:cut] in vocab and name[cut:] in vocab
    ]
    merges.sort(key=lambda item: -item[0])
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": i, "content": name, "special": True, **flags} for i, name in enumerate(names[:3])
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "ByteFallback"},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True,
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "byte_fallback": True,
            "ignore_merges": False, "vocab": vocab, "merges": [pair for _, pair in merges],
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("stories")
    read_model(needs_data("stories260k", "stories260K.bin")).save_pretrained(directory)
    definition = read_tokenizer(needs_data("stories260k", "tok512.bin"))
    (directory / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    config |= {"eos_token": "</s>", "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def test_the_conversion_tells_stories(stories: Path) -> None:
    """The converted model continues a story in English, so its numbers are in the right places."""
    judge = Untrimmed(stories)
    ids = judge.ids("Once upon a time, there was a little girl named")
    for _ in range(6):
        ids.append(int(judge.logits(ids).argmax()))
    assert "Lily" in judge.tokenizer.decode(ids)


def test_a_real_llama(stories: Path, tmp_path: Path) -> None:
    labels = ("happy", "sad", "big")
    spec = BuildSpec(precision=("fp32",), model=str(stories), labels=labels, prompt=PROMPT)
    built = build(spec, tmp_path / "bundle")
    judge = Untrimmed(stories)
    tokens = [label.token_ids[0] for label in built.manifest.labels]
    rows = [judge.ids(PROMPT.replace("{text}", text)) for text in TEXTS]
    expected = torch.stack([judge.logits(row)[tokens] for row in rows]).numpy()
    mutant = torch.stack([judge.logits([*row[:1], *row[2:]])[tokens] for row in rows]).numpy()
    found = Classifier.load(tmp_path / "bundle").logits(TEXTS)
    assert expected.std() > 0.5, "a trained model's own spread: its weights are not scaled here"
    assert np.abs(found - expected).max() < 1e-3
    assert np.abs(found - mutant).max() > 0.1
