"""Tests build from graphs that another test has traced: they are those that would be traced."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch

import families
import tiny
from traced_graphs import Unknown, key_of, shared
from trimexport import BuildSpec
from trimexport.bundle.onnx_file import write_onnx
from trimexport.graph import compile as compilation
from trimexport.graph.classifier import CompiledClassifier
from trimexport.graph.compile import compile_graph
from trimexport.graph.prefix_attention import PLAIN, STEADY
from trimexport.graph.trace import trace
from trimexport.model.layerwise import LayerwiseModel
from trimexport.planning import plan
from trimexport.progress import Silent

ALIKE = ("World politics", "World sports", "positive")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[CompiledClassifier]:
    """What was traced for want of a graph, in a directory of this test's own."""
    modules: list[CompiledClassifier] = []

    def counted(classifier: CompiledClassifier) -> ir.Model:
        modules.append(classifier)
        return trace(classifier)

    (tmp_path / "graphs").mkdir()
    monkeypatch.setattr(compilation, "trace", shared(counted, tmp_path / "graphs"))
    return modules


def written(spec: BuildSpec, directory: Path, attention: str) -> dict[str, bytes]:
    """The files of a spec's graph."""
    planned = plan(spec)
    graph = compile_graph(planned, LayerwiseModel(planned.checkpoint), Silent(), attention)
    directory.mkdir()
    write_onnx(graph, directory / "model.onnx", directory / "model.onnx_data", lambda done: None)
    return tiny.snapshot(directory)


@pytest.mark.parametrize(
    ("name", "labels", "attention"), [("gemma", ALIKE, STEADY), ("gpt2", ("good", "bad"), PLAIN)]
)
def test_a_graph_is_the_one_that_was_traced(
    traced: list[CompiledClassifier],
    tmp_path: Path,
    name: str,
    labels: tuple[str, ...],
    attention: str,
) -> None:
    """Bit for bit but for the names of new values; and it takes the weights of whichever model of
    the same architecture is built."""
    one, other = (
        BuildSpec(
            model=str(families.make(name, tmp_path / str(seed), seed=seed)),
            labels=labels,
            prompt=tiny.PROMPT,
        )
        for seed in (1, 2)
    )
    fresh = written(one, tmp_path / "fresh", attention)
    assert len(traced) == 1
    read = written(one, tmp_path / "read", attention)
    assert numbered(read["model.onnx"]) == numbered(fresh["model.onnx"])
    assert read["model.onnx_data"] == fresh["model.onnx_data"]
    assert (
        written(other, tmp_path / "other", attention)["model.onnx_data"] != read["model.onnx_data"]
    )
    assert len(traced) == 1


def numbered(model: bytes) -> str:
    """A graph as text, in which the values and nodes that got a number are numbered in order: a
    graph that was read counts anew."""
    names: dict[str, str] = {}
    return re.sub(
        r"\b(val|node)_\w*\d",
        lambda found: names.setdefault(found[0], f"{found[1]}-{len(names)}"),
        str(onnx.load_model_from_string(model)),
    )


class Stop(Exception):
    """Instead of a trace."""


def key(
    monkeypatch: pytest.MonkeyPatch,
    directory: Path,
    labels: tuple[str, ...] = ("positive", "negative"),
    prompt: str = tiny.PROMPT,
    attention: str = STEADY,
    **given: Any,
) -> str:
    """What names the graph of a Gemma 2 that is configured like this."""
    keys: list[str] = []

    def instead(classifier: CompiledClassifier) -> ir.Model:
        keys.append(key_of(classifier))
        raise Stop

    monkeypatch.setattr(compilation, "trace", instead)
    directory.mkdir()
    model = families.make("gemma2", directory / "model", **given)
    spec = BuildSpec(model=str(model), labels=labels, prompt=prompt)
    with pytest.raises(Stop):
        written(spec, directory / "graph", attention)
    return keys[0]


def test_what_the_tracer_sees_is_in_the_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"attention": PLAIN},
        {"prompt": f"Please read. {tiny.PROMPT}"},
        {"prompt": f"{tiny.PROMPT} a"},
        {"labels": ("positive", "negative", "World")},
        {"labels": ("World politics", "World sports")},
        {"labels": ("World politics", "World sports", "World news")},
        {"layers": 1},
        {"attn_logit_softcapping": 3.5},
        {"query_pre_attn_scalar": 41},
        {"rms_norm_eps": 1e-5},
        {"sliding_window": 13},
        {"intermediate_size": 161},
        {"hidden_activation": "silu"},
    ]
    keys = [key(monkeypatch, tmp_path / str(i), **change) for i, change in enumerate(changes)]
    assert [keys.index(it) for it in keys] == list(range(len(changes)))
    assert key(monkeypatch, tmp_path / "again", seed=3, id2label={0: "x", 1: "y"}) == keys[0]


def test_what_is_not_understood_is_traced_each_time(tmp_path: Path) -> None:
    """A function that was made by another may do as its makers' settings say."""
    module: Any = torch.nn.Linear(2, 2)
    module.made_here = lambda: None
    with pytest.raises(Unknown):
        key_of(module)
    calls: list[object] = []
    trace_or_read: Any = shared(calls.append, tmp_path)  # type: ignore[arg-type]
    for _ in range(2):
        trace_or_read(module)
    assert calls == [module, module]
    assert list(tmp_path.iterdir()) == []
