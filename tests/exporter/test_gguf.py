"""GGUF files: read to the numbers that transformers reads, and to the same model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from families import make
from gguf_models import write_gguf
from trimexport import CheckpointError
from trimexport.graph.streamed_weights import StreamedWeight
from trimexport.model.layerwise import LayerwiseModel
from trimexport.quantize.taken_over import as_stored
from trimexport.source.adapter import merge_adapter
from trimexport.source.checkpoint import Checkpoint, open_checkpoint
from trimexport.source.gguf_config import ARCHITECTURES

IDS = (2, 5, 9, 700, 41, 6, 7, 3, 1200, 88, 90, 11, 13, 14, 15)
LLAMA_3 = {
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
YARN = {"rope_type": "yarn", "rope_theta": 9000.0, "factor": 4.0}
LINEAR = {"rope_type": "linear", "rope_theta": 9000.0, "factor": 2.0}
WIDE = {"hidden_size": 256, "intermediate_size": 256, "vocab_size": 512}
# What transformers' own reader does not take from a file, and so must have its defaults here.
KNOWN = {
    "gemma2": {"query_pre_attn_scalar": 256, "head_dim": 256},
    "gemma3": {"query_pre_attn_scalar": 256},
    "qwen3": {"head_dim": 128},
    "gpt2": {"n_positions": 1024},
}

OLDEST = """
import json, sys
from pathlib import Path
import transformers
from trimexport import CheckpointError
from trimexport.model.layerwise import LayerwiseModel
from trimexport.prompt.tokenizer import load_tokenizer
from trimexport.source.checkpoint import open_checkpoint
assert transformers.__version__.startswith("4.57."), transformers.__version__
ids, *files = sys.argv[1:]
for file in map(Path, files):
    model = LayerwiseModel(open_checkpoint(file, "", None))
    logits = model.reference([json.loads(ids)], range(8)).token_logits[0]
    try:
        load_tokenizer(file)
    except CheckpointError as error:
        print(json.dumps([logits.tolist(), str(error)]))
"""


def opened(file: Path) -> Checkpoint:
    return open_checkpoint(file, str(file), None)


def windowless(name: str) -> dict[str, Any]:
    """llama.cpp's conversion knows of Gemma's and Phi-3's windows alone."""
    return {
        "mistral": {"sliding_window": None},
        "qwen2": {"use_sliding_window": False, "sliding_window": None, "layer_types": None},
        "qwen3": {"use_sliding_window": False, "sliding_window": None, "layer_types": None},
    }.get(name, {})


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("gemma", {}),
        ("gemma2", {"query_pre_attn_scalar": 24}),
        ("gemma3", {"query_pre_attn_scalar": 24, "layers": 7, "layer_types": None}),
        ("granite", {}),
        ("smollm", {"rope_parameters": LINEAR}),
        ("smollm", {"attention_bias": True, "mlp_bias": True, "rope_parameters": YARN}),
        ("llama3", LLAMA_3),
        ("mistral", {}),
        ("phi3", {}),
        ("phi3-longrope", {}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("smollm3", {"layers": 4, "no_rope_layers": [1, 1, 1, 0]}),
        ("gpt2", {}),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_a_family_is_the_model_that_was_converted(
    name: str, more: dict[str, Any], tmp_path: Path
) -> None:
    directory = make(name, tmp_path / "model", **{**windowless(name), **more})
    found = opened(write_gguf(directory, tmp_path / "model.gguf"))
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    expected = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        del expected["lm_head.weight"]
    assert set(found.tensors) == set(expected)
    for tensor, value in expected.items():
        assert torch.allclose(found.read(tensor), value, atol=1e-6), tensor  # one was added
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0, -1]
    answer = LayerwiseModel(found).reference([IDS], range(len(logits))).token_logits[0]
    assert logits.std() >= 1
    assert (answer - logits).abs().max() < 1e-3


def test_every_architecture_is_tested() -> None:
    tested = {"gemma", "gemma2", "gemma3", "granite", "llama", "phi3"}
    assert set(ARCHITECTURES) == tested | {"qwen2", "qwen3", "smollm3", "gpt2"}


def as_transformers_reads(file: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    found = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        found.pop("lm_head.weight", None)
    return found


def assert_same(found: Checkpoint, expected: dict[str, torch.Tensor]) -> None:
    assert set(found.tensors) == set(expected)
    for name, value in expected.items():
        assert torch.equal(found.read(name), value), name
        middle = found.read(name, 3, 7)
        assert torch.equal(middle, value[3:7]), name
        assert middle.is_contiguous()


@pytest.mark.parametrize(
    "kind",
    ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K"],
)
def test_numbers_are_what_transformers_reads(kind: str, tmp_path: Path) -> None:
    directory = make("smollm", tmp_path / "model", layers=1, **WIDE, rope_parameters=None)
    file = write_gguf(directory, tmp_path / "model.gguf", Kind[kind], tokenizer=False)
    found = opened(file)
    assert found.tensors["model.layers.0.self_attn.q_proj.weight"].dtype == kind
    assert_same(found, as_transformers_reads(file))
    table = "model.embed_tokens.weight"
    assert torch.equal(found.read_rows(table, [5, 3, 511]), found.read(table)[[5, 3, 511]])


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "phi3", "qwen2", "qwen3", "gpt2"])
def test_an_architecture_is_what_transformers_reads(name: str, tmp_path: Path) -> None:
    more = {**windowless(name), **KNOWN.get(name, {})}
    directory = make(name, tmp_path / "model", layers=1, **more)
    file = write_gguf(directory, tmp_path / "model.gguf", Kind.Q8_0)
    assert_same(opened(file), as_transformers_reads(file))


def test_rows_in_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with matrices that are larger than what is dequantised at once."""
    found = {}
    for name in ("smollm", "gpt2"):
        directory = make(name, tmp_path / name, layers=1)
        checkpoint = opened(write_gguf(directory, tmp_path / f"{name}.gguf", Kind.Q4_0))
        whole = {it: checkpoint.read(it) for it in checkpoint.tensors}
        found[name] = checkpoint, whole
    monkeypatch.setattr("trimexport.source.gguf_blocks._CHUNK", 100)
    for checkpoint, whole in found.values():
        for name, value in whole.items():
            assert torch.equal(checkpoint.read(name), value), name
            assert torch.equal(checkpoint.read(name, 5, 30), value[5:30]), name


def test_a_split_file(tmp_path: Path) -> None:
    directory = make("smollm", tmp_path / "model", layers=1)
    whole = opened(write_gguf(directory, tmp_path / "model.gguf", Kind.Q8_0))
    (tmp_path / "parts").mkdir()
    first = write_gguf(directory, tmp_path / "parts" / "model.gguf", Kind.Q8_0, per_file=4)
    parts = sorted(first.parent.iterdir())
    assert len(parts) == 3
    for place in (first, parts[1]):  # whichever is named
        found = opened(place)
        assert found.directory == first
        assert found.files == frozenset(parts)
        for name in whole.tensors:
            assert torch.equal(found.read(name), whole.read(name)), name
    hashed = opened(first).config_sha256
    data = bytearray(parts[2].read_bytes())
    data[-100] ^= 1
    parts[2].write_bytes(data)
    assert opened(first).config_sha256 != hashed


def test_the_hash_notices_other_weights_under_the_same_header(tmp_path: Path) -> None:
    files = [
        write_gguf(
            make("smollm", tmp_path / str(seed), layers=1, seed=seed), tmp_path / f"{seed}.gguf"
        )
        for seed in (0, 1)
    ]
    first, second = (opened(file).config_sha256 for file in files)
    assert first == opened(files[0]).config_sha256
    assert first != second


def test_an_adapter_is_merged(tmp_path: Path) -> None:
    """Its rows are in transformers' order, and so are those that it is added to."""
    base = opened(write_gguf(make("smollm", tmp_path / "model", layers=1), tmp_path / "a.gguf"))
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4}
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    module = "model.layers.0.self_attn.q_proj"
    a, b = torch.randn(2, 64), torch.randn(64, 2)
    pair = {f"base_model.model.{module}.lora_{it}.weight": v for it, v in (("A", a), ("B", b))}
    save_file(pair, directory / "adapter_model.safetensors")
    found = merge_adapter(base, directory, str(directory))
    name = f"{module}.weight"
    expected = base.read(name) + 2.0 * (b @ a)
    assert torch.allclose(found.read(name), expected, atol=1e-6)
    assert torch.allclose(found.read(name, 5, 30), expected[5:30], atol=1e-6)


def test_the_oldest_transformers_makes_the_same_models(tmp_path: Path) -> None:
    oldest = os.environ.get("TRIMEXPORT_OLDEST_TRANSFORMERS")
    if not oldest:
        pytest.skip("TRIMEXPORT_OLDEST_TRANSFORMERS is not set; `make test` sets it")
    files = []
    for name, more in (("gemma3", {}), ("llama3", LLAMA_3), ("phi3-longrope", {})):
        directory = make(name, tmp_path / name, **more)
        files.append(write_gguf(directory, tmp_path / f"{name}.gguf"))
    paths = os.pathsep.join([oldest, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", OLDEST, json.dumps(IDS), *map(str, files)]
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    answers = list(map(json.loads, done.stdout.splitlines()))
    for file, (answer, refusal) in zip(files, answers, strict=True):
        expected = LayerwiseModel(opened(file)).reference([IDS], range(8)).token_logits[0]
        assert (torch.tensor(answer) - expected).abs().max() < 1e-3
        assert refusal.startswith(f"the tokenizer of {file} is read by transformers 5, and this")
        assert refusal.endswith("; give the model's own tokenizer with --tokenizer")


def test_end_tokens_are_the_metadatas(tmp_path: Path) -> None:
    directory = make("smollm", tmp_path / "model", layers=1)
    more = {"tokenizer.ggml.eot_token_id": 107, "tokenizer.ggml.eom_token_id": 9000}
    found = opened(write_gguf(directory, tmp_path / "model.gguf", metadata=more))
    assert found.end_ids == (1, 107)  # the vocabulary has 8,000
    assert (found.config.bos_token_id, found.config.pad_token_id) == (2, 0)


def test_scales_of_granite_that_a_file_leaves_out(tmp_path: Path) -> None:
    """llama.cpp has defaults for all but that of the logits."""
    directory = make("granite", tmp_path / "model", layers=1)
    less = dict.fromkeys(("embedding_scale", "attention.scale", "residual_scale"))
    config = opened(write_gguf(directory, tmp_path / "model.gguf", metadata=less)).config
    assert (config.embedding_multiplier, config.residual_multiplier) == (1.0, 1.0)
    assert (config.attention_multiplier, config.logits_scaling) == (16**-0.5, 2.5)
    file = write_gguf(directory, tmp_path / "less.gguf", metadata={"logit_scale": None})
    with pytest.raises(CheckpointError, match=r"lacks granite\.logit_scale in its metadata; take"):
        opened(file)


def test_blocks_of_a_row_are_all_that_is_read(tmp_path: Path) -> None:
    """A row's own bytes are dequantised, wherever the rest of the file is damaged."""
    directory = make("smollm", tmp_path / "model", layers=1)
    file = write_gguf(directory, tmp_path / "model.gguf", Kind.Q8_0)
    found = opened(file)
    name = "model.embed_tokens.weight"
    entry = found.tensors[name]
    row = found.read(name, 10, 11)
    width = entry.bytes // entry.shape[0]
    assert width == 64 // 32 * gguf.GGML_QUANT_SIZES[Kind.Q8_0][1]
    data = np.fromfile(file, np.uint8)
    data[entry.offset : entry.offset + 10 * width] = 255
    data.tofile(file)
    assert torch.equal(found.read(name, 10, 11), row)
    with pytest.raises(CheckpointError, match=rf"tensor {name} of {file} holds NaN at \[9, 0\]"):
        found.read(name, 9, 10)  # its scale is NaN
    taken_over = as_stored(StreamedWeight(found, name, False, "e"))
    with pytest.raises(
        CheckpointError, match=rf"{name} of {file} holds NaN at \[0, 0\].* one of 640"
    ):
        list(taken_over)
