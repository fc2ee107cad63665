"""Static int8: where the codes are, what their scales come from, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from tokenizers import Tokenizer

import tiny
from trimexport import BuildSpec, ExportError, SpecError, Texts, build
from trimexport.bundle.onnx_file import write_onnx
from trimexport.graph.compile import compile_graph
from trimexport.graph.prefix_attention import PLAIN
from trimexport.model.layerwise import LayerwiseModel
from trimexport.planning import Plan, plan
from trimexport.progress import Silent
from trimexport.quantize.calibration import Calibration, Largest
from trimexport.quantize.hadamard import Turn, turn_of
from trimexport.quantize.int8 import Factors, half_scale
from trimexport.quantize.matrices import products
from trimexport.quantize.rotation import rotate
from trimexport.quantize.smooth import Activations
from trimexport.quantize.tensorrt_int8 import to_static_int8
from trimexport.source.checkpoint import open_checkpoint

LABELS = ("positive", "negative")
SEEN = Texts(tuple(text for text in tiny.TEXTS if text))


def ranges(
    planned: Plan, model: LayerwiseModel, factors: dict[str, Factors] | None = None
) -> Activations:
    """What calibration on SEEN gives; no file is written for it."""
    return Calibration(planned, model, SEEN, Path("unused"), Silent()).ranges(factors or {})


def largest_inputs(
    model: LayerwiseModel, rows: list[tuple[int, ...]], skip: int
) -> dict[str, torch.Tensor]:
    largest = Largest()
    model.show_inputs(rows, skip, largest.add)
    return largest.found


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "rotated"])
def written(
    request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict]:
    """A graph in static int8 that was not smoothed, and the activations it was calibrated with."""
    planned = plan(BuildSpec(model=str(tiny_model), labels=LABELS, prompt=tiny.PROMPT))
    model = LayerwiseModel(planned.checkpoint)
    graph = compile_graph(planned, model, Silent(), PLAIN)
    factors = rotate(graph, {}) if request.param else {}
    activations = ranges(planned, model, factors)
    to_static_int8(graph, factors, activations)
    path = tmp_path_factory.mktemp("static") / "graph.onnx"
    write_onnx(graph, path, path.with_suffix(".data"))
    return path, dict(activations)


def test_every_weight_and_its_activation_are_codes(written: tuple[Path, dict]) -> None:
    path, activations = written
    model = onnx.load(path)
    makers = {name: node for node in model.graph.node for name in node.output}
    weights = {item.name: item for item in model.graph.initializer}
    scales = {}
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in makers:
            continue
        right = makers[node.input[1]]
        if right.op_type != "DequantizeLinear":
            continue
        codes = numpy_helper.to_array(weights[right.input[0]])
        steps = numpy_helper.to_array(weights[right.input[1]])
        assert codes.dtype == np.int8
        assert abs(codes.astype(int)).max() == 127
        assert (steps.dtype, steps.shape) == (np.float16, (codes.shape[1],))
        assert next(it.i for it in right.attribute if it.name == "axis") == 1
        left = makers[node.input[0]]
        assert left.op_type == "DequantizeLinear"
        assert makers[left.input[0]].op_type == "QuantizeLinear"
        step = numpy_helper.to_array(weights[left.input[1]])
        assert (step.dtype, step.shape) == (np.float16, ())
        scales[right.input[0].removesuffix(".static").removesuffix(".transposed")] = float(step)
    assert set(scales) == set(activations), "each matrix of the layers, and no other"
    for name, step in scales.items():
        assert step == pytest.approx(float(activations[name].amax()) / 127, rel=1e-3)


def test_no_operator_of_dynamic_quantisation(written: tuple[Path, dict]) -> None:
    model = onnx.load(written[0], load_external_data=False)
    kinds = {node.op_type for node in model.graph.node}
    assert kinds >= {"QuantizeLinear", "DequantizeLinear"}
    assert not kinds & {"DynamicQuantizeLinear", "MatMulInteger", "MatMulNBits", "ReduceMin"}
    assert {node.domain for node in model.graph.node} == {""}


def test_the_token_that_runs_before_each_text_is_seen(tiny_model: Path) -> None:
    """Without a suffix the prefix's last token is not compiled, so its activations count."""
    planned = plan(BuildSpec(model=str(tiny_model), labels=LABELS, prompt="Sentiment of {text}"))
    model = LayerwiseModel(planned.checkpoint)
    found = ranges(planned, model)
    tokenizer = Tokenizer.from_str(json.dumps(planned.text_tokenizer))
    prefix = planned.prompt.prefix_ids
    rows = [(*prefix, *tokenizer.encode(text).ids) for text in SEEN.texts]
    with_it = largest_inputs(model, rows, len(prefix) - 1)
    without_it = largest_inputs(model, rows, len(prefix))
    assert all(torch.equal(found[name], with_it[name]) for name in with_it)
    assert any(bool((found[name] > without_it[name]).any()) for name in with_it)


def test_padding_is_not_seen(tiny_model: Path) -> None:
    model = LayerwiseModel(open_checkpoint(tiny_model, "", None))
    rows = [(2, 900, 901), (2, 17, 18, 19, 20, 21, 22, 23)]
    together = largest_inputs(model, rows, 1)
    apart = [largest_inputs(model, [row], 1) for row in rows]
    for name, found in together.items():
        expected = torch.maximum(apart[0][name], apart[1][name])
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5), name


def test_ranges_of_what_is_smoothed_and_rotated(tiny_model: Path) -> None:
    """A matrix is calibrated by what it will read, and one without factors by what it reads."""
    planned = plan(BuildSpec(model=str(tiny_model), labels=LABELS, prompt=tiny.PROMPT))
    model = LayerwiseModel(planned.checkpoint)
    graph = compile_graph(planned, model, Silent(), PLAIN)
    first, *others = products(graph)
    plain = ranges(planned, model)
    divisors = torch.ones(first.weight.shape.numpy()[0])
    divisors[3] = 1000
    factors = {first.name: Factors(inputs=divisors)}
    found = ranges(planned, model, factors)
    assert torch.allclose(found[first.parameter], plain[first.parameter] / divisors)
    assert all(torch.equal(found[it.parameter], plain[it.parameter]) for it in others)
    width = turn_of(len(divisors)).width
    found = ranges(planned, model, {first.name: Factors(turn=Turn(width))})
    bound = plain[first.parameter].unflatten(0, (-1, width)).norm(dim=1)
    assert bool((found[first.parameter].unflatten(0, (-1, width)) <= bound[:, None] * 1.001).all())
    assert not torch.allclose(found[first.parameter], plain[first.parameter], rtol=0.1)


def test_what_calibration_did_not_see_is_refused(tiny_model: Path) -> None:
    planned = plan(BuildSpec(model=str(tiny_model), labels=LABELS, prompt=tiny.PROMPT))
    graph = compile_graph(planned, LayerwiseModel(planned.checkpoint), Silent(), PLAIN)
    first = products(graph)[0].parameter
    with pytest.raises(ExportError, match=f"saw no input of {first}.*--tensorrt fp16"):
        to_static_int8(graph, {}, {})


@given(st.floats(min_value=0, max_value=1e5, width=32))
def test_scales_are_float16_with_all_digits(scale: float) -> None:
    half = half_scale(torch.tensor(scale))
    assert float(half) == float(np.float16(float(half))) >= 2.0**-14
    if 2.0**-14 <= scale <= 65504:
        assert float(half) == pytest.approx(scale, rel=2.0**-11)


def test_calibration_for_nothing(tmp_path: Path, tiny_model: Path) -> None:
    spec = BuildSpec(
        model=str(tiny_model),
        labels=LABELS,
        prompt=tiny.PROMPT,
        precision=("fp32",),
        tensorrt=("fp16",),
    )
    with pytest.raises(SpecError, match="fp32, tensorrt-fp16 needs none"):
        build(spec, tmp_path / "bundle", calibration=SEEN, engines=False)
