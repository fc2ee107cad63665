"""Which models are taken, what is read of each, and how far its positions reach."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

import families
import tiny
from trimexport import BuildSpec, UnsupportedError, plan
from trimexport.source.checkpoint import Checkpoint, open_checkpoint
from trimexport.source.empty_model import body_of, make_skeleton
from trimexport.source.families import (
    FAMILIES,
    SUPPORTED,
    attention_scale,
    context_of,
    family_of,
    holds_classifier,
    is_classifier,
    read_rope_parameters,
    reference_attention,
)

LABELS = ("positive", "negative")
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 5000.0}


def opened(directory: Path) -> Checkpoint:
    return open_checkpoint(directory, str(directory), None)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_table_names_classes_of_transformers(family: Any) -> None:
    for name in (family.causal, *family.classifiers):
        assert hasattr(transformers, name)
        assert family_of({"architectures": [name]}, "m") == (name, family)
    assert not is_classifier(family.causal)
    assert all(map(is_classifier, family.classifiers))


def test_every_row_of_the_tests_models_is_a_family(tmp_path: Path) -> None:
    """A family that is in the table and not in the tests would be a claim without a proof."""
    made = {AutoConfig.for_model(row.kind).__class__ for row in families.FAMILIES.values()}
    claimed = {getattr(transformers, name).config_class for name in SUPPORTED}
    assert made == claimed


@pytest.mark.parametrize(
    "architecture",
    [
        "BertModel",
        "BloomForCausalLM",
        "BertForSequenceClassification",
        "GraniteForSequenceClassification",  # which transformers has not
    ],
)
def test_another_architecture_is_refused_with_all_that_are_taken(architecture: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        family_of({"architectures": [architecture]}, "m")
    assert str(caught.value) == (
        f"m is a {architecture}; supported are {', '.join(SUPPORTED)}, and classifiers that were "
        "fine-tuned from them (*ForSequenceClassification), where transformers has one"
    )


@pytest.mark.parametrize("key", ["use_bidirectional_attention", "add_cross_attention"])
@pytest.mark.parametrize("part", [None, "text_config"])
def test_attention_that_does_not_only_look_back(
    tiny_copy: Path, key: str, part: str | None
) -> None:
    def change(value: object) -> dict[str, object]:
        return {key: value} if part is None else {part: {key: value}}

    tiny.edit_json(tiny_copy / "config.json", lambda it: it.update(change(True)))
    message = rf"attends .* \({key} in config\.json\); only causal decoders can be compiled"
    with pytest.raises(UnsupportedError, match=message):
        opened(tiny_copy)
    for value in (False, None):
        raw = {"architectures": ["GemmaForCausalLM"], **change(value)}
        assert family_of(raw, str(tiny_copy))[0] == "GemmaForCausalLM"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"architectures": ["MistralForSequenceClassification"]}', True),
        ('{"architectures": ["MistralForCausalLM"]}', False),
        ('{"architectures": []}', False),
        ('{"architectures": null}', False),
        ("{}", False),
        ("[]", False),
        ("{", False),
        ("\xff", False),
        (None, False),
    ],
)
def test_a_directory_that_may_hold_a_classifier(
    tmp_path: Path, text: str | None, expected: bool
) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text, encoding="latin-1")
    assert holds_classifier(tmp_path) is expected


def parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


def assert_holds(checkpoint: Checkpoint, expected: dict[str, torch.Tensor]) -> None:
    assert set(checkpoint.tensors) == set(expected)
    for name, value in expected.items():
        assert torch.equal(checkpoint.read(name), value)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_gpt2_under_either_of_its_names(tmp_path: Path, prefix: str) -> None:
    """The causal mask that old checkpoints store is no weight; `c_attn.bias` is one."""
    directory = families.make("gpt2", tmp_path)

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[prefix + name] = tensors.pop(name)
        tensors[f"{prefix}h.0.attn.bias"] = torch.ones(1, 1, 256, 256)
        tensors[f"{prefix}h.1.attn.masked_bias"] = torch.tensor(-1e4)

    tiny.edit_tensors(directory, rename)
    expected = parameters(AutoModelForCausalLM.from_pretrained(directory))
    assert "transformer.h.0.attn.c_attn.bias" in expected
    assert_holds(opened(directory), expected)


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model."])
def test_the_text_part_of_a_multimodal_model(tmp_path: Path, prefix: str) -> None:
    """As transformers names it and as the hub does; what sees images is left out."""
    directory = families.make("gemma3-multimodal", tmp_path)
    full = AutoModelForCausalLM.from_pretrained(directory)
    own = "model.language_model."

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(own)]:
            tensors[prefix + name.removeprefix(own)] = tensors.pop(name)
        assert any("vision" in name for name in tensors)

    tiny.edit_tensors(directory, rename)
    checkpoint = opened(directory)
    expected = {
        "model." + name.removeprefix(own): value
        for name, value in parameters(full).items()
        if name.startswith(own)
    }
    assert_holds(checkpoint, expected)
    assert checkpoint.bytes == 4 * sum(value.numel() for value in expected.values())
    assert checkpoint.config.model_type == "gemma3_text"


def test_a_multimodal_model_s_own_output_layer(tmp_path: Path) -> None:
    directory = families.make("gemma3-multimodal", tmp_path)
    own = torch.ones(8000, 64)
    tiny.edit_tensors(directory, lambda it: it.update({"language_model.lm_head.weight": own}))
    assert torch.equal(opened(directory).read("lm_head.weight"), own)


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({}, 4096),
        ({"rope_scaling": None}, 4096),
        ({"rope_scaling": "none"}, 4096),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, 4096),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, 4096),
        ({"rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 512}}, 4096),
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 1024}, 1024),
        (
            {"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 512}},
            512,
        ),
        ({"rope_parameters": {"rope_type": "longrope"}}, 4096),
        (
            {"rope_parameters": {"rope_type": "longrope"}, "original_max_position_embeddings": 1e5},
            4096,
        ),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear"}}}, 4096),
    ],
)
def test_how_far_positions_reach(settings: dict[str, Any], limit: int) -> None:
    assert context_of(SimpleNamespace(max_position_embeddings=4096, **settings)) == limit


def scaled(name: str, directory: Path) -> tuple[Path, int]:
    """A model whose rotary frequencies change with the length, and from where on."""
    if name == "longrope":
        return families.make("phi3-longrope", directory), 200
    families.make("smollm", directory)
    tiny.edit_json(directory / "config.json", lambda it: it.update(rope_parameters=DYNAMIC))
    return directory, 256


@pytest.mark.parametrize("name", ["dynamic", "longrope"])
def test_frequencies_are_constants_up_to_the_limit(tmp_path: Path, name: str) -> None:
    """Up to it they are transformers' own, and one position further transformers changes them
    all, so the limit could not be larger."""
    directory, limit = scaled(name, tmp_path)
    checkpoint = opened(directory)
    assert checkpoint.context == limit
    ours = body_of(make_skeleton(checkpoint, "eager")).rotary_emb
    theirs = AutoModelForCausalLM.from_pretrained(directory).model.rotary_emb

    def tables(rotary: Any, length: int) -> torch.Tensor:
        positions = torch.arange(length).unsqueeze(0)
        return torch.stack(rotary(torch.zeros(1), positions))[:, :, :limit]

    assert torch.equal(tables(ours, limit), tables(theirs, limit))
    assert torch.equal(tables(ours, limit + 1), tables(ours, limit))
    assert (tables(theirs, limit + 1) - tables(ours, limit)).abs().max() > 0.1


@pytest.mark.parametrize("name", ["dynamic", "longrope"])
def test_a_text_gets_what_the_prompt_leaves_of_the_limit(tmp_path: Path, name: str) -> None:
    directory, limit = scaled(name, tmp_path)
    for asked, total in ((None, limit), (limit + 50, limit), (100, 100)):
        planned = plan(
            BuildSpec(model=str(directory), labels=LABELS, prompt="R: {text}\nS:", max_tokens=asked)
        )
        around = len(planned.prompt.prefix_ids) + len(planned.prompt.suffix_ids)
        assert around > 4
        assert planned.limit == total - around


def test_rotary_settings_for_transformers_4() -> None:
    """What transformers 5 writes, under the names that transformers 4 knows."""
    plain = SimpleNamespace(rope_parameters={"rope_type": "default", "rope_theta": 5e3})
    read_rope_parameters(plain)
    assert (plain.rope_theta, plain.rope_scaling) == (5e3, None)

    settings = {
        "rope_type": "longrope",
        "rope_theta": 7e3,
        "partial_rotary_factor": 0.5,
        "short_factor": [1.0],
        "long_factor": [2.0],
    }
    scaled = SimpleNamespace(rope_parameters=settings)
    read_rope_parameters(scaled)
    assert (scaled.rope_theta, scaled.partial_rotary_factor) == (7e3, 0.5)
    assert scaled.rope_scaling == settings
    assert scaled.rope_scaling is not settings

    both = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    }
    mixed = SimpleNamespace(rope_parameters=both)
    read_rope_parameters(mixed)
    assert (mixed.rope_local_base_freq, mixed.rope_theta) == (1e4, 1e6)
    assert mixed.rope_scaling == both["full_attention"]

    for untouched in ({}, {"rope_parameters": None}):
        config = SimpleNamespace(**untouched)
        read_rope_parameters(config)
        assert vars(config) == untouched


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        ("gemma", {}, "sdpa"),
        ("gemma2", {}, "eager"),
        ("gemma2", {"attn_logit_softcapping": None}, "sdpa"),
        ("gemma3", {}, "sdpa"),
        ("mistral", {}, "sdpa"),
        ("gpt2", {}, "sdpa"),
        ("gpt2", {"scale_attn_weights": False}, "eager"),
        ("gpt2-scaled", {}, "eager"),
    ],
)
def test_the_reference_s_attention(name: str, more: dict[str, Any], expected: str) -> None:
    row = families.FAMILIES[name]
    config = AutoConfig.for_model(row.kind, **{"num_hidden_layers": 2, **row.options, **more})
    assert reference_attention(config) == expected


def test_gpt2_s_scale() -> None:
    plain = SimpleNamespace(layer_idx=3)
    unscaled = SimpleNamespace(layer_idx=3, scale_attn_weights=False)
    odd = SimpleNamespace(layer_idx=3, scale_attn_by_inverse_layer_idx=True)
    assert attention_scale(plain, 16) == 0.25
    assert attention_scale(unscaled, 16) == 1.0
    assert attention_scale(odd, 16) == 0.0625


def test_terms_of_a_multimodal_gemma(tmp_path: Path) -> None:
    """A plan of Google's own vocabulary carries Google's terms; what somebody trained does not."""
    directory = families.make("gemma3-multimodal", tmp_path / "model")
    spec = BuildSpec(model=str(directory), labels=LABELS, prompt="R: {text}\nS:")
    assert plan(spec).notice is None
    wide = shutil.copytree(directory, tmp_path / "wide")
    tiny.edit_json(wide / "config.json", lambda it: it["text_config"].update(vocab_size=262_208))
    notice = plan(BuildSpec(model=str(wide), labels=LABELS, prompt="R: {text}\nS:")).notice
    assert notice is not None
    assert re.match(r"Gemma is provided under and subject to the Gemma Terms of Use", notice)
