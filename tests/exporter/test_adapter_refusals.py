"""Adapters that are damaged, that are for another model, or that do more than plain LoRA."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import families
import tiny
from models import GEMMA_MINI
from trimexport import BuildSpec, CheckpointError, TrimexportError, UnsupportedError, plan
from trimexport.cli import main
from trimexport.source.adapter import merge_adapter
from trimexport.source.checkpoint import Checkpoint, open_checkpoint

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
Q = "model.layers.0.self_attn.q_proj"
HEAD, TABLE = "lm_head", "model.embed_tokens"
SETTINGS = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "org/the-model",
    "r": 4,
    "lora_alpha": 16,
}
Tensors = dict[str, torch.Tensor]


def pair(module: str, outputs: int, inputs: int, rank: int = 4) -> Tensors:
    """A change of one matrix, as peft names its two halves."""
    return {
        f"{PREFIX}{module}.lora_A.weight": torch.ones(rank, inputs),
        f"{PREFIX}{module}.lora_B.weight": torch.ones(outputs, rank),
    }


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter of the tiny Gemma, to break."""
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / CONFIG).write_text(json.dumps(SETTINGS), encoding="utf-8")
    save_file(pair(Q, 32, 32), directory / WEIGHTS)
    return directory


def configure(adapter: Path, **change: object) -> None:
    tiny.edit_json(adapter / CONFIG, lambda it: it.update(change))


def edit(adapter: Path, change: Callable[[Tensors], Any]) -> None:
    tensors = load_file(adapter / WEIGHTS)
    change(tensors)
    save_file(tensors, adapter / WEIGHTS)


def merge(base: Path, adapter: Path) -> Checkpoint:
    return merge_adapter(open_checkpoint(base, "the-base", None), adapter, str(adapter))


def refused(
    base: Path, adapter: Path, message: str, kind: type[TrimexportError] = CheckpointError
) -> str:
    with pytest.raises(kind, match=re.escape(message)) as caught:
        merge(base, adapter)
    assert caught.type is kind
    return str(caught.value)


def test_the_adapter_as_it_is(tiny_model: Path, adapter: Path) -> None:
    name = Q + ".weight"
    found = merge(tiny_model, adapter)
    own = open_checkpoint(tiny_model, "", None).read(name)
    assert torch.allclose(found.read(name), own + 16 / 4 * 4)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("peft_type", "IA3", "is of the kind IA3 (peft_type in adapter_config.json); LORA can be"),
        ("peft_type", None, "is of the kind None"),
        ("use_dora", True, "has use_dora = true in adapter_config.json, with which it is more"),
        ("lora_bias", True, "has lora_bias = true"),
        ("use_qalora", True, "has use_qalora = true"),
        ("alora_invocation_tokens", [5, 6], "has alora_invocation_tokens = [5, 6]"),
        ("layer_replication", [[0, 2]], "has layer_replication = [[0, 2]]"),
        ("trainable_token_indices", [7], "has trainable_token_indices = [7]"),
        ("of_the_future", "x", 'has of_the_future = "x"'),
        ("init_lora_weights", "pissa", 'has init_lora_weights = "pissa"'),
    ],
)
def test_more_than_plain_lora(
    tiny_model: Path, adapter: Path, key: str, value: object, message: str
) -> None:
    configure(adapter, **{key: value})
    refused(tiny_model, adapter, message, UnsupportedError)
    refused(tiny_model, adapter, "merge_and_unload", UnsupportedError)


@pytest.mark.parametrize("value", [None, False, [], {}])
def test_a_setting_that_is_off_is_none(tiny_model: Path, adapter: Path, value: object) -> None:
    configure(adapter, use_dora=value)
    assert merge(tiny_model, adapter).adapter is not None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lora_alpha", None),
        ("lora_alpha", "16"),
        ("lora_alpha", True),
        ("alpha_pattern", {"(": 3}),
        ("alpha_pattern", {"q_proj": "3"}),
        ("alpha_pattern", ["q_proj"]),
    ],
)
def test_a_strength_that_cannot_be_read(
    tiny_model: Path, adapter: Path, key: str, value: object
) -> None:
    configure(adapter, **{key: value})
    message = "adapter_config.json does not say how strong the adapter is (lora_alpha, alpha_patte"
    refused(tiny_model, adapter, message)


def _no_strength(adapter: Path) -> None:
    tiny.edit_json(adapter / CONFIG, lambda it: {k: v for k, v in it.items() if k != "lora_alpha"})


def _pickled(adapter: Path) -> None:
    (adapter / WEIGHTS).rename(adapter / "adapter_model.bin")


def _short(adapter: Path) -> None:
    (adapter / WEIGHTS).write_bytes((adapter / WEIGHTS).read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda it: (it / CONFIG).unlink(), "has no adapter_config.json; --adapter takes the"),
        (lambda it: (it / CONFIG).write_text("{"), "adapter_config.json cannot be read"),
        (lambda it: (it / CONFIG).write_text("[]"), "adapter_config.json is not a JSON object"),
        (_no_strength, "does not say how strong the adapter is"),
        (lambda it: (it / WEIGHTS).unlink(), "has no adapter_model.safetensors; --adapter takes"),
        (_pickled, "has its weights only as adapter_model.bin, which can run code"),
        (_short, "adapter_model.safetensors is truncated or damaged"),
    ],
)
def test_damaged_files(
    tiny_model: Path, adapter: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(adapter)
    refused(tiny_model, adapter, message)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("stored", [f"{Q}.lora_B.weight", "model.norm.weight"])
def test_a_weight_that_is_no_number(
    tiny_model: Path, adapter: Path, number: float, stored: str
) -> None:
    edit(adapter, lambda it: it.update({PREFIX + "model.norm.weight": torch.ones(32)}))
    edit(adapter, lambda it: it[PREFIX + stored].view(-1)[-1].fill_(number))
    found = "NaN" if number != number else f"{number:+}"
    refused(tiny_model, adapter, f"tensor {stored} of {adapter / WEIGHTS} holds {found} at [")


def test_weights_of_a_dtype_that_cannot_be_read(tiny_model: Path, adapter: Path) -> None:
    name = f"{PREFIX}{Q}.lora_A.weight"
    edit(adapter, lambda it: it.update({name: it[name].to(torch.int8)}))
    refused(tiny_model, adapter, "is I8; F32, F16, BF16 can be read")


@pytest.mark.parametrize("side", ["A", "B"])
def test_half_a_pair(tiny_model: Path, adapter: Path, side: str) -> None:
    edit(adapter, lambda it: it.pop(f"{PREFIX}{Q}.lora_{side}.weight"))
    refused(tiny_model, adapter, f"has one half of {Q}: lora_{side} is missing; copy the adapter")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{TABLE}.lora_embedding_A", f"changes an embedding ({TABLE}.lora_embedding_A)"),
        (
            f"{Q}.lora_magnitude_vector",
            f"holds {Q}.lora_magnitude_vector, which plain LoRA has not",
        ),
        (f"{Q}.lora_B.bias", "which plain LoRA has not"),
        (f"{Q}.lora_A.default.weight", "which plain LoRA has not"),
    ],
)
def test_tensors_that_plain_lora_has_not(
    tiny_model: Path, adapter: Path, name: str, message: str
) -> None:
    edit(adapter, lambda it: it.update({PREFIX + name: torch.ones(4, 8)}))
    refused(tiny_model, adapter, message, UnsupportedError)


@pytest.mark.parametrize("module", [TABLE, "model.norm"])
def test_a_pair_for_what_is_no_linear_layer(tiny_model: Path, adapter: Path, module: str) -> None:
    edit(adapter, lambda it: it.update(pair(module, 8000, 32)))
    refused(tiny_model, adapter, f"changes an embedding ({module})", UnsupportedError)


OF = (
    "; it was trained on org/the-model, the checkpoint is the-base (GemmaForCausalLM); give the "
    "adapter's own model with --model"
)


@pytest.mark.parametrize("module", ["transformer.h.0.attn.c_attn", "model.layers.2.mlp.up_proj"])
def test_a_layer_that_the_model_does_not_have(tiny_model: Path, adapter: Path, module: str) -> None:
    edit(adapter, lambda it: it.update(pair(module, 32, 32)))
    message = f"the adapter {adapter} is for another model: there is no {module}.weight{OF}"
    refused(tiny_model, adapter, message)


def test_a_part_that_the_multimodal_model_does_not_have(adapter: Path, tmp_path: Path) -> None:
    """What sees images is left out; every other name has to be known."""
    base = families.make("gemma3-multimodal", tmp_path / "base")
    seeing = "model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj"
    edit(adapter, lambda it: (it.clear(), it.update(pair(seeing, 16, 16))))
    refused(base, adapter, "changes nothing of the language model; it was trained on org/the-model")
    edit(adapter, lambda it: it.update(pair("model.audio_tower.q_proj", 16, 16)))
    refused(base, adapter, "there is no model.audio_tower.q_proj.weight")


def test_another_model_s_layer(adapter: Path) -> None:
    message = (
        f"is for another model: its {Q}.weight is [32, 4] times [4, 32], the checkpoint's "
        f"[128, 128]{OF}"
    )
    refused(GEMMA_MINI, adapter, message)


def test_ranks_that_differ_within_a_pair(tiny_model: Path, adapter: Path) -> None:
    edit(adapter, lambda it: it.update({f"{PREFIX}{Q}.lora_A.weight": torch.ones(3, 32)}))
    message = f"its {Q}.weight is [32, 4] times [3, 32], the checkpoint's [32, 32]"
    refused(tiny_model, adapter, message)


def test_a_replacement_of_another_shape(tiny_model: Path, adapter: Path) -> None:
    edit(adapter, lambda it: it.update({f"{PREFIX}{TABLE}.weight": torch.ones(7999, 32)}))
    message = f"its {TABLE}.weight is [7999, 32], the checkpoint's [8000, 32]"
    refused(tiny_model, adapter, message)


@pytest.mark.parametrize(
    ("tied", "tensors"),
    [
        (True, {f"{PREFIX}{TABLE}.weight": torch.ones(8002, 32)}),
        (False, {f"{PREFIX}{HEAD}.weight": torch.ones(8002, 32)}),
        (False, pair(HEAD, 8002, 32)),
    ],
)
def test_a_vocabulary_that_grew_in_training(
    tiny_model: Path, adapter: Path, tmp_path: Path, tied: bool, tensors: Tensors
) -> None:
    base = tiny_model if tied else tiny.save_tiny(tmp_path / "base", tie_word_embeddings=False)
    edit(adapter, lambda it: it.update(tensors))
    message = "was trained with 2 more tokens than the 8,000 that the-base has"
    said = refused(base, adapter, message, UnsupportedError)
    assert "(resize_token_embeddings), merge it with peft (PeftModel.merge_and_unload)" in said


def test_an_adapter_that_names_no_model(tiny_model: Path, adapter: Path) -> None:
    configure(adapter, base_model_name_or_path=None)
    edit(adapter, lambda it: it.clear())
    message = "changes nothing of the language model; it was trained on a model that it does not"
    refused(tiny_model, adapter, message)


def test_a_classifier_s_adapter_on_a_language_model(tiny_model: Path, adapter: Path) -> None:
    configure(adapter, task_type="SEQ_CLS")
    message = (
        "was trained for SEQ_CLS (task_type in adapter_config.json), and the-base is a "
        "GemmaForCausalLM, which has no output layer for the adapter's labels; load the base with "
        "AutoModelForSequenceClassification and its id2label, merge it with peft"
    )
    refused(tiny_model, adapter, message, UnsupportedError)


def test_a_language_model_s_adapter_on_a_classifier(adapter: Path, tmp_path: Path) -> None:
    base = families.make("gemma", tmp_path / "base", classifier=True)
    message = (
        "was trained for CAUSAL_LM (task_type in adapter_config.json), and the-base is a "
        "GemmaForSequenceClassification; give the model that it was trained on with --model"
    )
    refused(base, adapter, message, UnsupportedError)


def test_a_change_of_a_tied_output_layer(tiny_model: Path, adapter: Path) -> None:
    edit(adapter, lambda it: it.update(pair(HEAD, 8000, 32)))
    message = "changes lm_head, which is tied to the embedding"
    refused(tiny_model, adapter, message, UnsupportedError)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({HEAD: 1.0}, "stores lm_head.weight, which its training parted"),
        ({TABLE: 1.0}, "stores model.embed_tokens.weight, which its training parted"),
        ({HEAD: 1.0, TABLE: 2.0}, "stores lm_head.weight and model.embed_tokens.weight, which"),
    ],
)
def test_half_of_a_tie(
    tiny_model: Path, adapter: Path, stored: dict[str, float], said: str
) -> None:
    new = {f"{PREFIX}{it}.weight": torch.full((8000, 32), stored[it]) for it in stored}
    edit(adapter, lambda it: it.update(new))
    refused(tiny_model, adapter, said, UnsupportedError)


def test_both_ends_of_a_tie(tiny_model: Path, adapter: Path) -> None:
    """They may be replaced together, by the same numbers."""
    table = torch.randn(8000, 32)
    edit(adapter, lambda it: it.update({f"{PREFIX}{TABLE}.weight": table}))
    edit(adapter, lambda it: it.update({f"{PREFIX}{HEAD}.weight": table.clone()}))
    assert torch.equal(merge(tiny_model, adapter).read(TABLE + ".weight"), table)


def test_an_adapter_that_goes_while_it_is_read(tiny_model: Path, adapter: Path) -> None:
    found = merge(tiny_model, adapter)
    (adapter / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors cannot be read \("):
        found.read(Q + ".weight")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none/at/all", "none/at/all is no directory; --adapter takes a directory with adapter_"),
        ("", "the adapter's name is empty; --adapter takes a directory with adapter_config.json"),
        ("ADAPTER", "has use_dora = true in adapter_config.json"),
    ],
)
@pytest.mark.parametrize("command", ["build", "inspect"])
def test_refused_on_the_command_line(
    tiny_model: Path, adapter: Path, tmp_path: Path, command: str, name: str, message: str
) -> None:
    configure(adapter, use_dora=True)
    before = sorted(tmp_path.iterdir())
    options = ["--model", str(tiny_model), "--labels", "positive,negative", "--prompt", tiny.PROMPT]
    options += ["-o", str(tmp_path / "out")] if command == "build" else []
    name = str(adapter) if name == "ADAPTER" else name
    done = CliRunner().invoke(main, [command, *options, "--adapter", name])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_an_adapter_that_fits_and_names_another_model(tiny_model: Path, adapter: Path) -> None:
    """Shapes cannot tell a model from its sibling; the build says what the adapter says."""
    spec = BuildSpec(
        model=str(tiny_model), labels=("good", "bad"), prompt="{text}", adapter=str(adapter)
    )
    note = f"it was trained on org/the-model, the checkpoint is {tiny_model}"
    assert any(note in line for line in plan(spec).notes)
    configure(adapter, base_model_name_or_path=f"org/{tiny_model.name}")
    assert not any("it was trained on" in line for line in plan(spec).notes)
