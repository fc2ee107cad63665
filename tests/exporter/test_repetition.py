"""Layers of a kind are traced once; each layer of the graph has its own weights all the same."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from transformers import AutoConfig, AutoModelForCausalLM

import families
import tiny
from models import SIZE, TEXTS, Untrimmed, harden, save
from trimexport import BuildSpec, plan
from trimexport.bundle.onnx_file import write_onnx
from trimexport.graph.compile import compile_graph
from trimexport.graph.prefix_attention import STEADY
from trimexport.graph.repeat_layers import Repetition, keep_first_of_each
from trimexport.model.layerwise import LayerwiseModel
from trimexport.progress import Silent
from trimexport.source.checkpoint import Checkpoint, open_checkpoint
from trimexport.source.empty_model import body_of, layers_of, make_skeleton

SLIDING, FULL = "sliding_attention", "full_attention"
LABELS = ("positive", "negative", "World")


def config_of(name: str, **more: Any) -> Any:
    """A family's configuration, small and with four layers."""
    row = families.FAMILIES[name]
    return AutoConfig.for_model(row.kind, **{**SIZE, "num_hidden_layers": 4, **row.options, **more})


def skeleton_of(name: str, **more: Any) -> Any:
    """Its model without weights."""
    config = config_of(name, **more)
    return make_skeleton(Checkpoint(Path(), "", None, config, "ForCausalLM", {}), STEADY)


@pytest.mark.parametrize(
    ("name", "more", "kinds"),
    [
        ("gemma", {}, (0, 0, 0, 0)),
        ("gemma2", {"layer_types": [SLIDING, FULL, SLIDING, FULL]}, (0, 1, 0, 1)),
        ("gemma3", {"layer_types": [SLIDING, SLIDING, SLIDING, FULL]}, (0, 0, 0, 1)),
        ("gemma3", {"layer_types": [FULL, FULL, FULL, FULL]}, (0, 0, 0, 0)),
        ("qwen2", {"layer_types": [FULL, SLIDING, SLIDING, FULL]}, (0, 1, 1, 0)),
        ("mistral", {}, (0, 0, 0, 0)),
        ("granite", {}, (0, 0, 0, 0)),
        ("olmo2", {}, (0, 0, 0, 0)),
        ("phi3", {}, (0, 0, 0, 0)),
        ("smollm3", {"no_rope_layers": [1, 1, 1, 0]}, (0, 0, 0, 1)),
        ("gpt2", {}, (0, 0, 0, 0)),
        ("gpt2-scaled", {}, (0, 1, 2, 3)),
    ],
)
def test_kinds(name: str, more: dict[str, Any], kinds: tuple[int, ...]) -> None:
    skeleton = skeleton_of(name, **more)
    body = body_of(skeleton)
    before = list(layers_of(body))
    types = getattr(skeleton.config, "layer_types", None)
    found = keep_first_of_each(body, skeleton.config)
    layers = "h" if name.startswith("gpt2") else "layers"
    assert found == Repetition(layers, kinds, skeleton.config.hidden_size)
    first = [kinds.index(kind) for kind in sorted(set(kinds))]
    assert list(layers_of(body)) == [before[index] for index in first]
    if types:
        assert skeleton.config.layer_types == [types[index] for index in first]


def test_a_layer_of_another_shape_is_of_another_kind() -> None:
    body = body_of(skeleton_of("mistral", num_hidden_layers=3))
    old = body.layers[1].mlp.up_proj
    body.layers[1].mlp.up_proj = torch.nn.Linear(
        old.in_features, old.out_features + 1, bias=False, device="meta"
    )
    assert keep_first_of_each(body, body.config).kinds == (0, 1, 0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma 2 with four layers of two kinds."""
    types = [SLIDING, FULL, SLIDING, FULL]
    model = AutoModelForCausalLM.from_config(config_of("gemma2", layer_types=types))
    return save(harden(model, seed=7), tmp_path_factory.mktemp("four") / "model")


@pytest.fixture(scope="module")
def compiled(checkpoint: Path) -> Path:
    """Its graph."""
    spec = BuildSpec(model=str(checkpoint), labels=LABELS, prompt=tiny.PROMPT)
    planned = plan(spec)
    graph = compile_graph(planned, LayerwiseModel(planned.checkpoint), Silent())
    path = checkpoint.with_name("model.onnx")
    write_onnx(graph, path, path.with_name("model.onnx_data"), lambda done: None)
    return path


def layer_weights(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The layers' initializers by name."""
    model = onnx.load(path)
    return {
        item.name: numpy_helper.to_array(item)
        for item in model.graph.initializer
        if item.name.startswith("body.layers.")
    }


def test_each_layer_multiplies_by_its_own_weights(checkpoint: Path, compiled: Path) -> None:
    onnx.checker.check_model(str(compiled), full_check=True)
    source = open_checkpoint(checkpoint, "m", None)
    weights = layer_weights(compiled)
    graph = onnx.load(compiled, load_external_data=False).graph
    used = Counter(name for node in graph.node for name in node.input if name in weights)
    assert set(used.values()) == {1}, "no weight is shared, none is left over"
    assert set(used) == set(weights)
    multiplied = Counter(
        name.split(".")[2]
        for node in graph.node
        if node.op_type == "MatMul"
        for name in node.input
        if name in weights and "_proj" in name
    )
    assert multiplied == {str(layer): 7 for layer in range(4)}
    for layer in range(4):
        for name, entry in source.tensors.items():
            if name.startswith(f"model.layers.{layer}.") and name.endswith("_proj.weight"):
                found = weights["body." + name.removeprefix("model.") + ".transposed"]
                assert found.shape == entry.shape[::-1]
                assert np.array_equal(found.T, source.read(name).numpy())


def answers(path: Path, rows: list[list[int]]) -> npt.NDArray[np.float32]:
    session = ort.InferenceSession(str(path))
    logits = [
        session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0]
        for ids in (np.array([row], dtype=np.int64) for row in rows)
    ]
    return np.stack(logits)


def test_the_graph_answers_as_all_four_layers_do(
    checkpoint: Path, compiled: Path, tmp_path: Path
) -> None:
    """And not as they would in another order of their kinds or of their weights."""
    planned = plan(BuildSpec(model=str(checkpoint), labels=LABELS, prompt=tiny.PROMPT))
    prefix, suffix = planned.prompt.prefix_ids, planned.prompt.suffix_ids
    texts = [planned.tokenizer.encode_inside(" " + text) for text in TEXTS if text]
    assert max(map(len, texts)) > families.WINDOW
    rows = [list(text) for text in texts]
    whole = [[*prefix, *row, *suffix] for row in rows]
    tokens = list(planned.rows)
    found = answers(compiled, rows)

    expected = Untrimmed(checkpoint).logits_of(whole, tokens)
    assert expected.std(axis=0).mean() >= 1, "a model that says nothing proves nothing"
    assert np.abs(found - expected).max() < 1e-3

    other = shutil.copytree(checkpoint, tmp_path / "other")
    kinds = {"layer_types": [FULL, SLIDING, FULL, SLIDING]}
    tiny.edit_json(other / "config.json", lambda it: it.update(kinds))
    assert np.abs(found - Untrimmed(other).logits_of(whole, tokens)).max() > 0.1

    judge = Untrimmed(checkpoint)
    layers = judge.model.model.layers
    layers[0].load_state_dict(layers[2].state_dict())
    assert np.abs(found - judge.logits_of(whole, tokens)).max() > 0.1
