"""The layer-by-layer engine against transformers' own forward."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from models import gemma, llama, save
from trimexport import CheckpointError
from trimexport.model import layerwise
from trimexport.model.layerwise import LayerwiseModel
from trimexport.source.checkpoint import open_checkpoint

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
    monkeypatch.setattr(layerwise, "TOKENS_PER_STEP", tokens_per_step)
    monkeypatch.setattr(layerwise, "TOKENS_PER_PASS", 70)
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
