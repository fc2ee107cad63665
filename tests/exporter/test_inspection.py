"""What would be cut, against transformers' own counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import families
import tiny
from trimexport import BuildSpec, plan
from trimexport.inspection.sizes import Inspection, inspect_plan
from trimexport.inspection.table import inspection_table
from trimexport.planning import Plan

LABELS = ("positive", "negative")


def _plan(directory: Path) -> Plan:
    return plan(BuildSpec(model=str(directory), labels=LABELS, prompt=tiny.PROMPT))


def _inspect(directory: Path) -> Inspection:
    return inspect_plan(_plan(directory))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_counts_are_the_model_s_own(tmp_path: Path, tied: bool, dtype: torch.dtype) -> None:
    directory = tiny.save_tiny(tmp_path, dtype, tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_pretrained(directory)
    found = _inspect(directory)
    assert found.tied == tied
    assert found.bytes_before == 4 * model.num_parameters()
    assert found.checkpoint_bytes == dtype.itemsize * model.num_parameters()
    before = {part.name.split(" (")[0]: part.before for part in found.parts}
    assert before == {
        "embedding": model.get_input_embeddings().weight.numel(),
        "decoder layers": sum(p.numel() for p in model.model.layers.parameters()),
        "final norm and others": sum(p.numel() for p in model.model.norm.parameters()),
        "output layer": model.get_output_embeddings().weight.numel(),
    }
    assert {part.modules for part in found.parts if part.name == "decoder layers"} == {2}


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_left_is_what_the_head_and_the_prefix_take(tmp_path: Path, tied: bool) -> None:
    directory = tiny.save_tiny(tmp_path, tie_word_embeddings=tied)
    found = _inspect(directory)
    body = AutoModelForCausalLM.from_pretrained(directory).model.num_parameters()
    head = len(LABELS) * 33  # a row and a bias a label
    assert found.bytes_after == 4 * (body + head) + found.prefix_bytes
    assert found.parts[-1].after == head
    assert (found.head_before, found.head_after) == (8000 * 32, len(LABELS) * 32)


def test_gpt2_s_counts(tmp_path: Path) -> None:
    """Its checkpoint's stray masks are no parameters; its positions have an embedding."""
    directory = families.make("gpt2", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(directory)
    found = _inspect(directory)
    counts = {part.name: (part.modules, part.before) for part in found.parts}
    rest = [model.transformer.ln_f, model.transformer.wpe]
    assert counts == {
        "embedding": (1, model.transformer.wte.weight.numel()),
        "decoder layers": (2, sum(p.numel() for p in model.transformer.h.parameters())),
        "final norm and others": (1, sum(p.numel() for m in rest for p in m.parameters())),
        "output layer (tied to the embedding)": (1, model.lm_head.weight.numel()),
    }
    assert found.checkpoint_bytes == found.bytes_before == 4 * model.num_parameters()
    prefix = len(_plan(directory).prompt.prefix_ids)
    assert prefix > 1
    assert found.prefix_bytes == 4 * 2 * 2 * 4 * 16 * prefix


def test_a_multimodal_model_s_counts(tmp_path: Path) -> None:
    """What sees images is not counted, before as after."""
    directory = families.make("gemma3-multimodal", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(directory)
    text = model.model.language_model
    found = _inspect(directory)
    counts = {part.name: (part.modules, part.before) for part in found.parts}
    assert counts == {
        "embedding": (1, 8000 * 64),
        "decoder layers": (2, sum(p.numel() for p in text.layers.parameters())),
        "final norm and others": (1, 64),
        "output layer (tied to the embedding)": (1, 8000 * 64),
    }
    assert found.checkpoint_bytes == found.bytes_before == 4 * text.num_parameters()
    assert text.num_parameters() < model.num_parameters()
    assert found.prefix_bytes == 4 * 2 * 2 * 2 * 24 * len(_plan(directory).prompt.prefix_ids)


def test_the_prefix_takes_what_the_bundle_s_graph_holds_more(tiny_model: Path) -> None:
    planned = plan(BuildSpec(model=str(tiny_model), labels=LABELS, prompt=tiny.PROMPT))
    tokens = len(planned.prompt.prefix_ids)
    assert tokens > 1
    assert inspect_plan(planned).prefix_bytes == 4 * 2 * 2 * 1 * 16 * tokens


def test_the_bundle_is_as_large_as_was_said(tiny_model: Path, tiny_bundle: Path) -> None:
    files = [tiny_bundle / "onnx" / name for name in ("model.onnx", "model.onnx_data")]
    size = sum(path.stat().st_size for path in files)
    assert size == pytest.approx(_inspect(tiny_model).bytes_after, rel=0.1)


def test_the_table_holds_the_counts(tiny_model: Path) -> None:
    planned = plan(BuildSpec(model=str(tiny_model), labels=LABELS, prompt=tiny.PROMPT))
    table = inspection_table(inspect_plan(planned), planned)
    for said in (
        "GemmaForCausalLM in",
        "256,000",  # embedding and output layer
        "decoder layers",
        "tied to the embedding",
        "256,000 multiplications a text before, 64 after",
        "label positive: ▁positive (",
        "label negative: ▁negative (",
        f"which leaves {planned.limit} for the text",
    ):
        assert said in table
