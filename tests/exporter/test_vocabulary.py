"""What the model would say, of its whole vocabulary, against transformers' own forward."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny
from models import Untrimmed, gemma, llama, save
from trimexport import BuildSpec, SpecError
from trimexport.model import layerwise, vocabulary
from trimexport.model.layerwise import LayerwiseModel
from trimexport.model.vocabulary import answer_states, likeliest, log_normaliser, mean_probabilities
from trimexport.planning import Setting, set_up, whole_ids

TEXTS = ("a gorgeous movie", "dull", "so", "two hours that feel\nlike five", "a film")
GROUPS = torch.tensor([0, 1, 2, 1, 0])


@pytest.fixture(scope="module", params=["gemma", "llama"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make = {"gemma": gemma, "llama": llama}[request.param]
    return save(make(seed=6), tmp_path_factory.mktemp(request.param))


def setting(directory: Path, prompt: str = tiny.PROMPT, **options: int) -> Setting:
    labels = ("positive", "negative")
    return set_up(BuildSpec(model=str(directory), labels=labels, prompt=prompt, **options))


@pytest.mark.parametrize("small", [False, True])
def test_numbers_are_those_of_the_full_forward(
    directory: Path, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the work is cut into blocks of the vocabulary and of the texts."""
    if small:
        monkeypatch.setattr(layerwise, "VOCABULARY_BLOCK", 999)
        monkeypatch.setattr(vocabulary, "_ROWS", 2)
        monkeypatch.setattr(vocabulary, "_WHOLE_ROWS", 2)
    found = setting(directory)
    judge = Untrimmed(directory)
    rows = [judge.ids(tiny.PROMPT.replace("{text}", text)) for text in TEXTS]
    assert whole_ids(found, TEXTS) == [tuple(row) for row in rows]
    full = torch.stack([judge.logits(row) for row in rows])
    expected = full.softmax(1)

    model = LayerwiseModel(found.checkpoint)
    seen: list[int] = []
    hidden = answer_states(model, found, TEXTS, seen.append)
    assert sum(seen) == len(TEXTS)
    normaliser = log_normaliser(model, hidden)
    assert torch.allclose(normaliser, full.logsumexp(1), atol=1e-4)
    means = mean_probabilities(model, hidden, normaliser, GROUPS, 3)
    for group in range(3):
        assert torch.allclose(means[group], expected[group == GROUPS].mean(0), atol=1e-5)
    said = likeliest(model, hidden, 10, [923, 5])
    best = expected.topk(10, dim=1)
    assert torch.allclose(said.probabilities, best.values, atol=1e-5)
    assert torch.equal(said.token_ids[:, 0], best.indices[:, 0])
    assert torch.allclose(expected.gather(1, said.token_ids), best.values, atol=1e-5)
    assert torch.allclose(said.asked, expected[:, [923, 5]], atol=1e-6)


def test_longer_texts_are_cut_as_in_the_bundle(tiny_model: Path) -> None:
    ids = whole_ids(setting(tiny_model, max_tokens=16), ["x " * 60])
    assert [len(row) for row in ids] == [16]


def test_nothing_at_all_has_no_answer(tmp_path: Path) -> None:
    directory = save(gemma(seed=6), tmp_path)
    tiny.edit_json(directory / "tokenizer.json", lambda it: it.update(post_processor=None))
    found = setting(directory, "{text}")
    with pytest.raises(SpecError, match="a text is empty, and so is the prompt around it"):
        answer_states(LayerwiseModel(found.checkpoint), found, ["a", ""])
