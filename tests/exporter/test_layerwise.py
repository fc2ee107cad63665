"""The layer-by-layer engine against transformers' own forward."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

import families
from models import gemma, llama, save
from trimexport import CheckpointError, ExportError, UnsupportedError
from trimexport.model import layerwise, streamed
from trimexport.model.layerwise import LayerwiseModel
from trimexport.model.shared_prefix import SharedPrefix, common_prefix
from trimexport.source.checkpoint import open_checkpoint
from trimexport.source.empty_model import attention_of, body_of

SEQUENCES = [[2, 900, 17, 4], [2], [2, *range(500, 560)], [2, 7, 7, 7, 7, 31]]
TOKENS = [5, 7999, 923]


@pytest.fixture(scope="module", params=["gemma", "llama"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make = {"gemma": gemma, "llama": llama}[request.param]
    return save(make(seed=5), tmp_path_factory.mktemp(request.param))


def engine(directory: Path) -> LayerwiseModel:
    return LayerwiseModel(open_checkpoint(directory, str(directory), None))


@pytest.mark.parametrize("tokens_per_step", [16, 2048])
def test_reference_is_the_full_forward(
    directory: Path, tokens_per_step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the work is cut into steps and blocks of the vocabulary."""
    monkeypatch.setattr(streamed, "TOKENS_PER_STEP", tokens_per_step)
    monkeypatch.setattr(streamed, "TOKENS_PER_PASS", 70)
    monkeypatch.setattr(layerwise, "VOCABULARY_BLOCK", 999)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    seen: list[int] = []
    found = engine(directory).reference(SEQUENCES, TOKENS, seen.append)
    assert sum(seen) == len(SEQUENCES)
    for row, sequence in enumerate(SEQUENCES):
        with torch.no_grad():
            logits = model(torch.tensor([sequence])).logits[0, -1]
        assert torch.allclose(found.token_logits[row], logits[TOKENS], atol=1e-4)
        assert torch.allclose(found.log_normaliser[row], logits.logsumexp(0), atol=1e-4)


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "phi3-longrope", "qwen3", "gpt2"])
def test_what_sequences_begin_with_is_read_once(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the model's own cache, longer than a window, each answers as it does when it is read
    whole; and the layers see the beginning once."""
    directory = families.make(family, tmp_path)
    beginning = [2, *range(700, 730)]
    sequences = [[*beginning, *range(40, 40 + more)] for more in (1, 3, 30, 7)]
    tokens = Counter[str]()
    running = engine(directory)
    running.body.register_forward_pre_hook(
        lambda module, args, kwargs: tokens.update(seen=kwargs["input_ids"].numel()),
        with_kwargs=True,
    )
    found = running.reference(sequences, TOKENS)
    whole = [running.reference([sequence], TOKENS) for sequence in sequences]
    for row, alone in enumerate(whole):
        assert torch.allclose(found.token_logits[row], alone.token_logits[0], atol=1e-4)
        assert torch.allclose(found.log_normaliser[row], alone.log_normaliser[0], atol=1e-4)
    padded, checked, alone_ones = 4 * 30, 32 + 61, sum(map(len, sequences))
    assert tokens["seen"] == len(beginning) + padded + checked + alone_ones

    keep = SharedPrefix.update

    def forget_one(*given: Any) -> Any:
        return tuple(part.index_fill(2, torch.tensor([30]), 0.0) for part in keep(*given))

    monkeypatch.setattr(SharedPrefix, "update", forget_one)
    with pytest.raises(ExportError, match=r"answers otherwise behind keys.*its cache cannot be"):
        running.reference(sequences, TOKENS)


def test_common_prefix() -> None:
    assert common_prefix([(1, 2, 3), (1, 2, 4, 5)]) == (1, 2)
    assert common_prefix([(1, 2), (1, 2, 3)]) == (1,), "one of each is left"
    assert common_prefix([(1, 2), (1, 2)]) == (1,)
    assert common_prefix([(1, 2, 3)]) == common_prefix([]) == common_prefix([(1,), (2,)]) == ()


def test_prefix_cache_is_transformers_cache(directory: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    cache = DynamicCache()
    with torch.no_grad():
        model(torch.tensor([SEQUENCES[2]]), past_key_values=cache, use_cache=True)
    found = engine(directory).prefix_cache(SEQUENCES[2])
    for layer, key, value in zip(cache.layers, found.keys, found.values, strict=True):
        assert torch.allclose(layer.keys[0], key, atol=1e-5)
        assert torch.allclose(layer.values[0], value, atol=1e-5)


def test_an_empty_prefix_has_no_cache(directory: Path) -> None:
    assert engine(directory).prefix_cache([]).keys == ()


def test_no_weight_stays(directory: Path) -> None:
    """Before and after a run every parameter is on the meta device."""
    running = engine(directory)
    running.reference(SEQUENCES, TOKENS)
    assert {p.device.type for p in running.model.parameters()} == {"meta"}


def test_a_tied_head_that_is_stored_and_differs_is_refused(tmp_path: Path) -> None:
    """Versions of transformers differ in which of the two they take, so none is chosen silently."""
    config = json.loads((save(llama(), tmp_path) / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    with pytest.raises(CheckpointError, match=r"ties the output layer.*stored and differs"):
        engine(tmp_path)


def test_the_single_file_wins_over_an_index(tmp_path: Path) -> None:
    """As in transformers: an index that was left behind is not read."""
    save(gemma(seed=8), tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "gone.safetensors"}}))
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    expected = model(torch.tensor([SEQUENCES[0]])).logits[0, -1, TOKENS]
    found = engine(tmp_path).reference(SEQUENCES[:1], TOKENS).token_logits[0]
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_model_that_transformers_writes_in_another_way() -> None:
    whole = torch.nn.Sequential(torch.nn.Linear(2, 2))
    for find, what in ((body_of, "list of layers"), (attention_of, "causal attention")):
        with pytest.raises(UnsupportedError, match=rf"^Sequential of .* has no {what}"):
            find(whole)  # type: ignore[operator]
