"""The cut, used alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

from models import gemma, llama
from trimexport import SpecError, trim_head

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


def test_the_final_soft_cap_stays() -> None:
    config = Gemma2Config(
        vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, final_logit_softcapping=5.0,
        pad_token_id=0,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(60)
    full, cut = full_and_cut(model, [3, 150])
    assert full.abs().max() > 3, "the cap must bite"
    assert torch.allclose(full, cut, atol=1e-5)


def test_any_causal_language_model() -> None:
    config = GPT2Config(vocab_size=200, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    full, cut = full_and_cut(GPT2LMHeadModel(config).eval(), [3, 150])
    assert torch.allclose(full, cut, atol=1e-5)


def test_dtype_is_kept() -> None:
    assert trim_head(llama().to(torch.bfloat16), [1, 2]).weight.dtype == torch.bfloat16


@pytest.mark.parametrize("ids", [[], [-1], [8000]])
def test_ids_outside_the_vocabulary(ids: list[int]) -> None:
    with pytest.raises(SpecError, match="give ids from 0 to 7999"):
        trim_head(GEMMA, ids)
