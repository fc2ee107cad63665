"""A trace runs the model once, unless something in it has to be decomposed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

import families
from trimexport import BuildSpec
from trimexport.graph import compile as compilation
from trimexport.graph.classifier import CompiledClassifier
from trimexport.graph.compile import compile_graph
from trimexport.graph.prefix_attention import STEADY
from trimexport.graph.task_inputs import TEXT
from trimexport.graph.trace import trace
from trimexport.model.layerwise import LayerwiseModel
from trimexport.planning import plan
from trimexport.progress import Silent

IDS = np.array([[3, 1, 2], [5, 0, 0]])
MASK = np.array([[1, 1, 1], [1, 0, 0]])


class InPlace(nn.Module):
    """One operator has no translation, one works in place; and conversions."""

    inputs = TEXT

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        unseen = 2 - attention_mask
        both = attention_mask & input_ids
        sums = input_ids.to(torch.float32).cumsum(1)
        sums += both
        return sums.to(torch.float32, copy=True) * unseen


class OtherName(nn.Module):
    """One operator's other name has no translation, nor is it among the decompositions."""

    inputs = TEXT

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return (input_ids.swapaxes(0, 1) * attention_mask.T).T.to(torch.float32)


@pytest.fixture
def decomposed(monkeypatch: pytest.MonkeyPatch) -> list[ExportedProgram]:
    """The programs that were decomposed."""
    programs: list[ExportedProgram] = []
    decompose = ExportedProgram.run_decompositions

    def noted(program: ExportedProgram, *arguments: Any, **options: Any) -> ExportedProgram:
        programs.append(program)
        return decompose(program, *arguments, **options)

    monkeypatch.setattr(ExportedProgram, "run_decompositions", noted)
    return programs


def test_a_model_is_not_decomposed(
    decomposed: list[ExportedProgram], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor is what is added to it: prompt, windows and a tree of labels."""
    monkeypatch.setattr(compilation, "trace", trace)
    labels = ("World politics", "World sports", "positive")
    model = families.make("gemma3", tmp_path / "model", layers=1)
    planned = plan(BuildSpec(model=str(model), labels=labels, prompt="Review: {text}\nIt is"))
    compile_graph(planned, LayerwiseModel(planned.checkpoint), Silent(), STEADY)
    assert not decomposed


@pytest.mark.parametrize("kind", [InPlace, OtherName])
def test_what_has_to_be_decomposed_is(
    kind: type[nn.Module], decomposed: list[ExportedProgram]
) -> None:
    module = kind()
    graph = ir.to_proto(trace(cast(CompiledClassifier, module))).SerializeToString()
    assert len(decomposed) == 1
    found = ort.InferenceSession(graph).run(None, {"input_ids": IDS, "attention_mask": MASK})[0]
    expected = module(torch.from_numpy(IDS), torch.from_numpy(MASK))
    np.testing.assert_array_equal(found, expected.numpy())
