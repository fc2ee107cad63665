"""int4: what the file says is what was meant, and the answers stay."""

from __future__ import annotations

# ruff: noqa: UP037, F821 (dimensions have names, which are no types)
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from onnx import numpy_helper
from onnxscript import FLOAT, INT64, script
from onnxscript import opset23 as op

from families import make
from gguf_models import write_gguf
from models import gemma, save
from tasks import SENTIMENT
from tiny import PROMPT, TEXTS
from trimexport import BuildSpec, ExportError, Texts, build
from trimexport.bundle.onnx_file import write_onnx
from trimexport.graph.streamed_weights import StreamedWeight
from trimexport.pipeline import Built
from trimexport.progress import Silent
from trimexport.quantize import second_moments, widths
from trimexport.quantize.blocks import BLOCK, Form, compensated, nearest, pack
from trimexport.quantize.int4 import to_int4
from trimexport.quantize.second_moments import SecondMoments
from trimexport.quantize.taken_over import form_in_file
from trimexport.source.checkpoint import Checkpoint, open_checkpoint
from trimexport_runtime import Classifier
from trimexport_runtime.bundle import TakenOver

HIDDEN = 72  # two blocks and a quarter
WIDE: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "vocab_size": 512,
    "rope_parameters": None,
}
PERMUTED = "model.layers.0.self_attn.q_proj.weight"
TABLE, WEIGHT = "model.embed_tokens.weight", "model.layers.0.mlp.gate_proj.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hard model whose rows are no whole blocks. Shared: do not change it."""
    hard = gemma(seed=3, hidden_size=HIDDEN, intermediate_size=150)
    return save(hard, tmp_path_factory.mktemp("models") / "hard")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A bundle of gemma-mini. Shared: do not change it."""
    spec = replace(SENTIMENT, precision=("int8", "int4"))
    return build(spec, tmp_path_factory.mktemp("bundles") / "both")


@script()
def look_up_and_multiply(
    ids: INT64["batch", "n"], table: FLOAT["tokens", "inputs"], weight: FLOAT["inputs", "outputs"]
) -> FLOAT["batch", "n", "outputs"]:
    return op.Identity(op.MatMul(op.Gather(table, ids, axis=0), weight))


def one_product(checkpoint: Checkpoint, matrix: str = WEIGHT) -> ir.Model:
    graph = ir.from_proto(look_up_and_multiply.to_model_proto())
    for source, transposed in ((matrix, True), (TABLE, False)):
        value = graph.graph.inputs.pop()
        assert value.name is not None
        value.const_value = StreamedWeight(checkpoint, source, transposed, value.name)
        graph.graph.register_initializer(value)
    return graph


def dequantised(graph: onnx.ModelProto) -> npt.NDArray[np.float32]:
    """The weight [outputs, inputs] of a graph's only product, as the operator's text has it."""
    (node,) = [node for node in graph.graph.node if node.op_type == "MatMulNBits"]
    attributes = {item.name: item.i for item in node.attribute}
    tensors = {item.name: numpy_helper.to_array(item) for item in graph.graph.initializer}
    codes, scales = (tensors[name] for name in node.input[1:])
    if attributes["bits"] == 4:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:-1], -1)
    outputs, blocks = attributes["N"], -(-attributes["K"] // attributes["block_size"])
    numbers = codes.reshape(outputs, blocks, -1).astype(np.float32) - 2 ** (attributes["bits"] - 1)
    numbers *= scales.reshape(outputs, blocks, 1)
    if offsets := [tensor for name, tensor in tensors.items() if name.endswith(".offset")]:
        numbers += offsets[0].T[..., None]
    return numbers.reshape(outputs, -1)[:, : attributes["K"]]


def moments_of(parameter: str, inputs: torch.Tensor, directory: Path) -> SecondMoments:
    """As calibration would leave them, had the parameter read these inputs [positions, inputs]."""
    found = SecondMoments(directory)
    found.add(parameter, inputs)
    found.flush()
    return found


@pytest.mark.parametrize(("bits", "worst"), [(4, 0.13), (8, 0.01)])
def test_the_written_file_holds_the_weights(
    model: Path, bits: int, worst: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the error that is stated, and ONNX Runtime reads them alike."""
    monkeypatch.setattr(widths, "BITS", widths.SIZES[bits])
    checkpoint = open_checkpoint(model, "hard", None)
    graph = one_product(checkpoint)
    ids = list(range(300, 500))
    seen = checkpoint.read_rows(TABLE, ids)
    changed = to_int4(graph, {}, lambda: moments_of("weight", seen, tmp_path))
    write_onnx(graph, tmp_path / "graph.onnx", tmp_path / "graph.data")
    weight = checkpoint.read(WEIGHT).numpy()
    found = dequantised(onnx.load(tmp_path / "graph.onnx"))
    error = np.linalg.norm(found - weight) / np.linalg.norm(weight)
    assert changed[0].name == "weight.int4"
    assert changed[0].error == pytest.approx(error, rel=1e-3)
    assert worst / 3 < error < worst
    session = ort.InferenceSession(str(tmp_path / "graph.onnx"))
    (result,) = session.run(None, {"ids": np.array([ids])})
    expected = looked_up(seen.numpy()) @ found.T
    assert np.linalg.norm(result[0] - expected) < 0.015 * np.linalg.norm(expected)


def looked_up(table: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows of the embedding as int8's table holds them."""
    scale = np.abs(table).max(1, keepdims=True) / 127
    return np.round(table / scale) * scale


def test_what_calibration_did_not_see_is_refused(model: Path, tmp_path: Path) -> None:
    graph = one_product(open_checkpoint(model, "hard", None))
    with pytest.raises(ExportError, match=r"calibration saw no input of weight, so int4 cannot be"):
        to_int4(graph, {}, lambda: SecondMoments(tmp_path))


@pytest.fixture(scope="module")
def correlated() -> torch.Tensor:
    """Inputs [positions, HIDDEN] that go along with each other, as those of real layers do."""
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(500, 12, generator=generator) @ torch.randn(12, HIDDEN, generator=generator)
    return few + 0.3 * torch.randn(500, HIDDEN, generator=generator)


@pytest.mark.parametrize("group", [1024, BLOCK])
def test_compensated_rounding_misses_less(
    group: int, correlated: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What products of such inputs miss is smaller than with each weight rounded to the nearest,
    though each weight is further away; on inputs that were not looked at, too."""
    monkeypatch.setattr(second_moments, "GROUP", group)
    weight = torch.randn(64, HIDDEN, generator=torch.Generator().manual_seed(1))
    factors = moments_of("weight", correlated[:300], tmp_path).factors("weight")
    assert [len(it) for it in factors] == ([72] if group > HIDDEN else [32, 32, 8])
    found = (nearest(weight, 4), compensated(weight, factors, 4))
    errors = [it.numbers(HIDDEN) - weight for it in found]
    near, made_up = [float((correlated[300:] @ error.T).norm()) for error in errors]
    assert made_up < (0.6 if group > HIDDEN else 0.9) * near
    assert errors[1].norm() > errors[0].norm()


def test_inputs_that_are_always_zero(tmp_path: Path) -> None:
    """They neither break the rounding nor change it."""
    part = torch.linspace(-2, 3, 2 * BLOCK).reshape(2, BLOCK)
    factors = moments_of("weight", torch.zeros(5, BLOCK), tmp_path).factors("weight")
    assert torch.equal(compensated(part, factors, 4).codes, nearest(part, 4).codes)


def test_second_moments(tmp_path: Path) -> None:
    """They add up over the steps of a layer and over passes; those that read the same share a
    file; each of a long input's groups has its own."""
    generator = torch.Generator().manual_seed(2)
    steps = torch.randn(4, 9, 1500, generator=generator)
    found = SecondMoments(tmp_path)
    for both in (steps[:2], steps[2:]):  # passes
        for step in both:
            found.add("body.layers.0.q_proj.weight", step)
            found.add("body.layers.0.k_proj.weight", step)
            found.add("body.layers.0.o_proj.weight", -step[:, :7])
        found.add("body.layers.1.q_proj.weight", both[0])
    found.flush()
    assert len(list(tmp_path.iterdir())) == 3
    whole = steps.flatten(0, 1)
    errors = torch.randn(3, 1500, generator=generator)
    parts = [errors[:, :1024] @ whole[:, :1024].T, errors[:, 1024:] @ whole[:, 1024:].T]
    expected = sum(float(part.square().sum()) for part in parts)
    for name in ("q_proj", "k_proj"):
        assert found.missed(f"body.layers.0.{name}.weight", errors) == pytest.approx(expected)
    short = errors[:, :7]
    expected = float((short @ whole[:, :7].T).square().sum())
    assert found.missed("body.layers.0.o_proj.weight", short) == pytest.approx(expected)


def test_the_worst_take_eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the budget goes: one that is too large for the rest is passed over."""
    monkeypatch.setattr(widths, "BITS", 5.8)  # a fifth of all weights
    sizes, missed = [100, 100, 300, 50, 450], [0.3, 0.1, 0.4, 0.2, 0.0]
    assert widths.spread(sizes, missed) == [8, 4, 4, 8, 4]


def test_blocks_of_zeros_and_of_one_sign() -> None:
    """Zero stays zero; the larger side has the code that is furthest from zero."""
    rows = torch.stack([torch.zeros(BLOCK), torch.linspace(3, 5, BLOCK), -torch.ones(BLOCK)])
    found = nearest(rows, 4)
    assert torch.isfinite(found.scales).all()
    values = found.numbers(BLOCK)
    assert float((values - rows).abs().max()) < 0.4
    assert not values[0].any()
    assert found.scales[1] < 0 < found.scales[2]


def test_packing() -> None:
    codes = torch.tensor([[1, 2, 15, 0]], dtype=torch.uint8)
    assert pack(codes, 4).tolist() == [[0x21, 0x0F]]
    assert pack(codes, 8) is codes


PLAIN_KINDS = (Kind.Q4_0, Kind.Q5_0, Kind.Q6_K, Kind.Q8_0)
OFFSET_KINDS = (Kind.Q4_1, Kind.Q4_K, Kind.Q5_1, Kind.Q5_K)


def stored_as(kind: Kind, directory: Path) -> Checkpoint:
    """A GGUF of a model whose heads' rows llama.cpp has in another order."""
    saved = make("smollm", directory / "model", layers=1, **WIDE)
    file = write_gguf(saved, directory / f"{kind.name}.gguf", kind, tokenizer=False)
    return open_checkpoint(file, str(file), None)


def refuse() -> SecondMoments:
    raise AssertionError("nothing is rounded, so no text is needed")


@pytest.mark.parametrize("kind", PLAIN_KINDS)
def test_a_gguf_s_blocks_are_taken_over(kind: Kind, tmp_path: Path) -> None:
    """Bit by bit the numbers that the library reads, in transformers' order of a head's rows; ONNX
    Runtime multiplies with them and looks them up."""
    checkpoint = stored_as(kind, tmp_path)
    assert checkpoint.tensors[PERMUTED].head  # type: ignore[attr-defined]
    graph = one_product(checkpoint, PERMUTED)
    changed = to_int4(graph, {}, refuse)
    write_onnx(graph, tmp_path / "graph.onnx", tmp_path / "graph.data")
    assert [tensor.error for tensor in changed] == [0.0, 0.0]
    written = onnx.load(tmp_path / "graph.onnx")
    weight, table = (checkpoint.read(name).numpy() for name in (PERMUTED, TABLE))
    assert np.array_equal(dequantised(written), weight)
    (lookup,) = [node for node in written.graph.node if node.op_type == "GatherBlockQuantized"]
    written.graph.output.append(onnx.helper.make_empty_tensor_value_info(lookup.output[0]))
    onnx.save(written, tmp_path / "both.onnx")
    ids = np.arange(512)[None]
    session = ort.InferenceSession(str(tmp_path / "both.onnx"))
    result, found = session.run(None, {"ids": ids})
    assert np.array_equal(found[0], table)
    expected = table @ weight.T
    assert np.linalg.norm(result[0] - expected) < 0.015 * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", OFFSET_KINDS)
def test_a_gguf_s_blocks_with_minima_are_taken_over(kind: Kind, tmp_path: Path) -> None:
    """They are the library's numbers but for the last bit of float32, as an offset stands for the
    minimum and the middle of the codes."""
    checkpoint = stored_as(kind, tmp_path)
    graph = one_product(checkpoint, PERMUTED)
    changed, _ = to_int4(graph, {}, refuse)
    write_onnx(graph, tmp_path / "graph.onnx", tmp_path / "graph.data")
    weight, table = (checkpoint.read(name).numpy() for name in (PERMUTED, TABLE))
    found = dequantised(onnx.load(tmp_path / "graph.onnx"))
    assert np.abs(found - weight).max() < 1e-6 * np.abs(weight).max()
    assert changed.error is not None
    assert changed.error < 1e-6
    session = ort.InferenceSession(str(tmp_path / "graph.onnx"))
    (result,) = session.run(None, {"ids": np.arange(512)[None]})
    expected = looked_up(table) @ weight.T
    assert np.linalg.norm(result[0] - expected) < 0.015 * np.linalg.norm(expected)


def test_what_is_not_taken_over(tmp_path: Path) -> None:
    """Rows for columns, and types of fewer bits than four or none at all."""
    checkpoint = stored_as(Kind.Q8_0, tmp_path)
    weight = StreamedWeight(checkpoint, WEIGHT, True, "weight")
    assert form_in_file(weight) == Form(8)
    turned = replace(checkpoint.tensors[WEIGHT], transposed=True)  # type: ignore[call-arg]
    others = replace(checkpoint, tensors={WEIGHT: turned})
    assert form_in_file(StreamedWeight(others, WEIGHT, True, "weight")) is None
    plain = stored_as(Kind.F16, tmp_path)
    assert form_in_file(StreamedWeight(plain, WEIGHT, True, "weight")) is None


class Heard(Silent):
    """Notes what a build says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_a_bundle_of_a_gguf(tmp_path: Path) -> None:
    """Its matrices are the file's, no text is asked for them, and batches change no bit."""
    saved = make("smollm", tmp_path / "model", layers=1, rope_parameters=None)
    file = write_gguf(saved, tmp_path / "model.gguf", Kind.Q4_1)
    spec = BuildSpec(str(file), ("positive", "negative"), PROMPT, precision=("int4",))
    heard = Heard()
    bundle = build(spec, tmp_path / "bundle", sample=Texts(tuple(TEXTS)), progress=heard)
    assert any("int4 takes 7 of 7 matrices over from the GGUF file" in it for it in heard.lines)
    taken = TakenOver(7, 7, embedding=False)  # of a type with minima
    assert bundle.manifest.variants[0].taken_over == taken
    assert bundle.report.variants[0].taken_over == taken
    assert bundle.report.variants[0].agreement >= 0.9
    assert_alike(bundle, TEXTS)


def test_the_variant(built: Built) -> None:
    """It says whose operators it needs, how wrong its weights are, and answers as the model."""
    int8, int4 = built.manifest.variants
    assert int8.operators == ("ai.onnx",)
    assert int4.operators == ("ai.onnx", "com.microsoft")
    assert int4.graph == "onnx/model_q4.onnx"
    assert int4.weight_error is not None
    assert int4.taken_over is None
    assert int8.weight_error is not None
    assert int8.weight_error * 3 < int4.weight_error < 0.2
    parity = built.report.variants[1]
    assert built.report.logit_deviation >= 1
    assert parity.mean_logit_difference < 0.2 * built.report.logit_deviation
    assert parity.agreement >= 0.95


def test_the_budget_is_spent(built: Built) -> None:
    """Some matrices have eight bits, all together no more than they may."""
    graph = onnx.load(built.directory / "onnx/model_q4.onnx", load_external_data=False).graph
    sizes = {4: 0, 8: 0}
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            attributes = {item.name: item.i for item in node.attribute}
            sizes[attributes["bits"]] += attributes["K"] * attributes["N"]
    assert sizes[8]
    spent = sum(widths.SIZES[bits] * size for bits, size in sizes.items()) / sum(sizes.values())
    assert spent <= widths.BITS


def test_a_text_answers_alike_in_any_batch(built: Built) -> None:
    assert_alike(built, [f"{text} {word}" for text in TEXTS for word in ("plot", "", "42 " * 9)])


def assert_alike(built: Built, texts: Sequence[str]) -> None:
    classifier = Classifier.load(built.directory, variant="int4")
    together = classifier.logits(texts)
    alone = np.concatenate([classifier.logits([text]) for text in texts])
    assert np.array_equal(together, alone)
