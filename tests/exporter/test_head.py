"""The cut, used alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from models import gemma, llama, save
from trimexport import SpecError, UnsupportedError, trim_head
from trimexport.model.layerwise import LayerwiseModel
from trimexport.source.checkpoint import open_checkpoint
from trimexport.source.families import SUPPORTED

GEMMA = gemma()
LLAMA = llama()


def full_and_cut(model: nn.Module, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Full-vocabulary logits at `ids`, and the cut head's."""
    rows = torch.randint(0, 100, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        full = model(rows).logits[..., ids]
        hidden = model.base_model(rows).last_hidden_state
        return full, trim_head(model, ids)(hidden)


@given(ids=st.lists(st.integers(0, 7999), min_size=1, max_size=9))
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("model", [GEMMA, LLAMA], ids=["tied", "untied"])
def test_it_gives_the_full_models_logits(model: nn.Module, ids: list[int]) -> None:
    full, cut = full_and_cut(model, ids)
    assert torch.allclose(full, cut, atol=1e-5, rtol=1e-5)


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_permuting_the_ids_permutes_the_logits(data: st.DataObject) -> None:
    """The rows of the head bit for bit, and the logits as far as sums of float32 may be taken in
    another order: by n times its spacing at 1, of the sum of the n products without their signs."""
    ids = [5, 17, 4000, 7999, 923]
    order = data.draw(st.permutations(range(len(ids))))
    hidden = torch.randn(4, 64)
    head, permuted = trim_head(GEMMA, ids), trim_head(GEMMA, [ids[i] for i in order])
    assert torch.equal(permuted.weight, head.weight[order])
    expected, found = head(hidden)[:, order], permuted(hidden)
    bound = 64 * torch.finfo(torch.float32).eps * (hidden.abs() @ permuted.weight.abs().T)
    assert ((found - expected).abs() <= bound).all()
    mutant = found.roll(1, dims=1)
    assert ((mutant - expected).abs() > 100 * bound).any(dim=0).all()


def test_it_is_a_linear_layer_of_its_own() -> None:
    """Tied embeddings keep every row, and training the cut does not change the model."""
    before = GEMMA.get_input_embeddings().weight.clone()
    head = trim_head(GEMMA, [1, 2, 3])
    assert isinstance(head, nn.Linear)
    assert head.weight.shape == (3, 64)
    assert torch.equal(head.bias, torch.zeros(3))
    with torch.no_grad():
        head.weight.zero_()
    assert torch.equal(GEMMA.get_input_embeddings().weight, before)


def test_a_bias_is_carried() -> None:
    model = llama(seed=1)
    model.lm_head = nn.Linear(64, 8000, bias=True)
    ids = [7, 3, 7000]
    head = trim_head(model, ids)
    assert torch.equal(head.bias, model.lm_head.bias[ids])


SMALL = {
    "vocab_size": 200, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0,
}  # fmt: skip


def capped_gemma() -> Gemma2ForCausalLM:
    """A Gemma 2 whose soft-cap bites."""
    model = Gemma2ForCausalLM(Gemma2Config(**SMALL, final_logit_softcapping=5.0)).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(60)
    return model


def test_the_final_soft_cap_stays() -> None:
    model = capped_gemma()
    full, cut = full_and_cut(model, [3, 150])
    assert full.abs().max() > 3, "the cap must bite"
    assert torch.allclose(full, cut, atol=1e-5)


def divided_granite() -> GraniteForCausalLM:
    """A Granite whose logits are a third of its output layer's."""
    small = {key: value for key, value in SMALL.items() if key != "head_dim"}
    model = GraniteForCausalLM(GraniteConfig(**small, logits_scaling=3.0)).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(60)
    return model


def test_the_divisor_stays() -> None:
    model = divided_granite()
    full, cut = full_and_cut(model, [3, 150])
    assert full.std() > 1
    assert torch.allclose(full, cut, atol=1e-5)
    assert trim_head(model, [3]).divisor == 3.0


def test_any_causal_language_model() -> None:
    config = GPT2Config(vocab_size=200, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    full, cut = full_and_cut(GPT2LMHeadModel(config).eval(), [3, 150])
    assert torch.allclose(full, cut, atol=1e-5)


def test_dtype_is_kept() -> None:
    assert trim_head(llama().to(torch.bfloat16), [1, 2]).weight.dtype == torch.bfloat16


def test_a_fine_tuned_classifiers_rows_are_its_labels() -> None:
    model = LlamaForSequenceClassification(LlamaConfig(**SMALL, num_labels=3)).eval()
    head = trim_head(model, [0, 2])
    assert torch.equal(head.weight, model.score.weight[[0, 2]])
    assert head.softcap is None


@pytest.mark.parametrize(
    "model",
    [
        GEMMA,
        LLAMA,
        capped_gemma(),
        divided_granite(),
        GPT2LMHeadModel(GPT2Config(vocab_size=200, n_embd=32, n_layer=2, n_head=2)),
        LlamaForSequenceClassification(LlamaConfig(**SMALL, num_labels=190)),
    ],
    ids=["tied", "untied", "capped", "divided", "gpt2", "classifier"],
)
def test_a_build_cuts_the_same_head(model: nn.Module, tmp_path: Path) -> None:
    """Its rows come from the checkpoint, without the model in memory."""
    directory = save(model, tmp_path)
    classifier = isinstance(model, LlamaForSequenceClassification)
    kind = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    ids = [150, 3, 189]
    alone = trim_head(kind.from_pretrained(directory, dtype=torch.float32), ids)
    built = LayerwiseModel(open_checkpoint(directory, "m", None)).cut_head(ids)
    assert torch.equal(built.weight, alone.weight)
    assert torch.equal(built.bias, alone.bias)
    assert built.softcap == alone.softcap
    assert (built.softcap is None) == (not isinstance(model, Gemma2ForCausalLM))
    assert built.divisor == alone.divisor == (3 if isinstance(model, GraniteForCausalLM) else 1)


def test_a_family_that_is_not_known_is_refused() -> None:
    """Cohere multiplies its logits, which rows of its output layer say nothing of."""
    small = {key: value for key, value in SMALL.items() if key != "head_dim"}
    model = CohereForCausalLM(CohereConfig(**small, logit_scale=0.0625))
    with pytest.raises(UnsupportedError) as caught:
        trim_head(model, [1, 2])
    assert str(caught.value) == (
        "what a CohereForCausalLM does to its logits behind the output layer is not known; "
        f"supported are {', '.join(SUPPORTED)}, and classifiers that were fine-tuned from them "
        "(*ForSequenceClassification), where transformers has one; for another model copy the rows "
        "of its output layer, and do to their logits what its forward does"
    )


def test_what_the_family_passes_over() -> None:
    """What a configuration says besides, as one that was copied from another model, is no fact."""
    full, cut = full_and_cut(llama(final_logit_softcapping=0.5, logits_scaling=8.0), [5, 17])
    assert full.abs().max() > 1
    assert torch.allclose(full, cut, atol=1e-5, rtol=1e-5)


def test_an_output_layer_that_is_more_than_its_rows() -> None:
    class Adapted(nn.Linear):
        """As peft and packed weights have it."""

    model = llama()
    model.lm_head = Adapted(64, 8000, bias=False)
    with pytest.raises(
        UnsupportedError,
        match=r"is a test_head\.Adapted, whose logits .* \(merge_and_unload in peft",
    ):
        trim_head(model, [5, 17])


def test_a_module_that_is_no_model_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="what a Linear does to its logits"):
        trim_head(nn.Linear(3, 4), [1, 2])


@pytest.mark.parametrize("ids", [[], [-1], [8000]])
def test_ids_outside_the_vocabulary(ids: list[int]) -> None:
    with pytest.raises(SpecError, match="give ids from 0 to 7999"):
        trim_head(GEMMA, ids)
