"""A graph that another test has traced is the one that would be traced."""

from __future__ import annotations

from pathlib import Path

import pytest

import families
import tiny
import traced_graphs
from trimexport import BuildSpec, Texts, build
from trimexport.graph import compile as compilation
from trimexport.graph.classifier import CompiledClassifier
from trimexport.graph.trace import trace

# The first two begin alike, so that they are read whole and a trie stands in the graph.
LABELS = ("World politics", "World sports", "positive")


def bundle(model: Path, output: Path, labels: tuple[str, ...] = LABELS) -> dict[str, bytes]:
    """The graphs of a bundle, with their data, by their paths."""
    spec = BuildSpec(
        model=str(model), labels=labels, prompt=tiny.PROMPT, precision=("fp32", "int8")
    )
    directory = build(spec, output, sample=Texts(("dull",))).directory
    return tiny.snapshot(directory / "onnx")


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_a_graph_that_was_kept(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[CompiledClassifier] = []

    def counted(classifier: CompiledClassifier) -> object:
        traced.append(classifier)
        return trace(classifier)

    model = families.make(family, tmp_path / "model", layers=1)
    monkeypatch.setattr(compilation, "trace", counted)
    expected = bundle(model, tmp_path / "traced")
    assert len(traced) == 1

    monkeypatch.setattr(compilation, "trace", traced_graphs.shared(counted, tmp_path))
    other = families.make(family, tmp_path / "other", layers=1, seed=5)
    others = bundle(other, tmp_path / "first")  # other weights, the same graph: it leaves it
    assert others != expected
    assert bundle(model, tmp_path / "kept") == expected
    assert len(traced) == 2, "and was not traced again"

    bundle(model, tmp_path / "two-labels", ("positive", "negative"))
    assert len(traced) == 3, "another head is another graph"


def test_what_the_tracer_might_see_and_nobody_knows() -> None:
    with pytest.raises(traced_graphs.Unknown):
        traced_graphs.description(lambda: None)
    with pytest.raises(traced_graphs.Unknown):
        traced_graphs.description(object())
