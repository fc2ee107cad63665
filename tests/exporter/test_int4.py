"""int4: what the file says is what was meant, and the answers stay."""

from __future__ import annotations

# ruff: noqa: UP037, F821 (dimensions have names, which are no types)
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from onnxscript import FLOAT, INT64, script
from onnxscript import opset23 as op

from models import gemma, save
from tasks import SENTIMENT
from tiny import TEXTS
from trimexport import build
from trimexport.bundle.onnx_file import write_onnx
from trimexport.graph.streamed_weights import StreamedWeight
from trimexport.pipeline import Built
from trimexport.quantize.int4 import BLOCK, pack, quantize_blocks, to_int4
from trimexport.quantize.int8 import Factors
from trimexport.source.checkpoint import Checkpoint, open_checkpoint
from trimexport_runtime import Classifier

HIDDEN = 72  # two blocks and a quarter
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
    ids: INT64["n"], table: FLOAT[8000, 72], weight: FLOAT[72, 150]
) -> FLOAT["n", 150]:
    return op.Identity(op.MatMul(op.Gather(table, ids, axis=0), weight))


def one_product(checkpoint: Checkpoint) -> ir.Model:
    graph = ir.from_proto(look_up_and_multiply.to_model_proto())
    for source, transposed in ((WEIGHT, True), (TABLE, False)):
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
    codes, scales, zeros = (halves_of(tensors[name]) for name in node.input[1:])
    outputs, blocks = attributes["N"], -(-attributes["K"] // attributes["block_size"])
    numbers = codes.reshape(outputs, blocks, -1).astype(np.float32)
    numbers -= zeros.reshape(outputs, -1)[:, :blocks, None]
    numbers *= scales.reshape(outputs, blocks, 1)
    return numbers.reshape(outputs, -1)[:, : attributes["K"]]


def halves_of(packed: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Two numbers of each byte, the lower half first; floats as they are."""
    if packed.dtype != np.uint8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


@pytest.mark.parametrize("smoothed", [False, True])
def test_the_written_file_holds_the_weights(model: Path, smoothed: bool, tmp_path: Path) -> None:
    """Within the error that is stated, and ONNX Runtime reads them alike."""
    checkpoint = open_checkpoint(model, "hard", None)
    generator = torch.Generator().manual_seed(0)
    factors = Factors(
        inputs=torch.rand(HIDDEN, generator=generator) + 0.5,
        outputs=torch.rand(150, generator=generator) + 0.5,
    )
    graph = one_product(checkpoint)
    changed = to_int4(graph, {"weight": factors} if smoothed else {})
    write_onnx(graph, tmp_path / "graph.onnx", tmp_path / "graph.data")
    weight = checkpoint.read(WEIGHT).numpy()
    if smoothed:
        assert factors.inputs is not None
        assert factors.outputs is not None
        weight = weight * factors.inputs.numpy() * factors.outputs[:, None].numpy()
    found = dequantised(onnx.load(tmp_path / "graph.onnx"))
    error = np.linalg.norm(found - weight) / np.linalg.norm(weight)
    assert changed[0].name == "weight.int4"
    assert changed[0].error == pytest.approx(error, rel=1e-3)
    assert 0.04 < error < 0.1
    ids = np.array([5, 77, 7000])
    session = ort.InferenceSession(str(tmp_path / "graph.onnx"))
    (result,) = session.run(None, {"ids": ids})
    expected = checkpoint.read_rows(TABLE, ids.tolist()).numpy() @ found.T
    assert np.linalg.norm(result - expected) < 0.015 * np.linalg.norm(expected)


def test_blocks_of_zeros_and_of_one_sign() -> None:
    """Zero stays zero; numbers of one sign use every code."""
    rows = torch.stack([torch.zeros(BLOCK), torch.linspace(3, 5, BLOCK), -torch.ones(BLOCK)])
    found = quantize_blocks(rows)
    assert torch.isfinite(found.scales).all()
    values = (found.codes.float() - found.zeros[..., None]) * found.scales[..., None]
    assert float((values - rows[:, None]).abs().max()) < 0.2
    assert not values[0].any()


def test_packing_an_odd_number() -> None:
    assert pack(torch.tensor([[1, 2, 15]], dtype=torch.uint8)).tolist() == [[0x21, 0x0F]]


def test_the_variant(built: Built) -> None:
    """It says whose operators it needs, how wrong its weights are, and answers as the model."""
    int8, int4 = built.manifest.variants
    assert int8.operators == ("ai.onnx",)
    assert int4.operators == ("ai.onnx", "com.microsoft")
    assert int4.graph == "onnx/model_q4.onnx"
    assert int4.weight_error is not None
    assert int8.weight_error is not None
    assert int8.weight_error * 3 < int4.weight_error < 0.1
    parity = built.report.variants[1]
    assert built.report.logit_deviation >= 1
    assert parity.mean_logit_difference < 0.2 * built.report.logit_deviation
    assert parity.agreement >= 0.95


def test_the_embedding_is_int8s(built: Built) -> None:
    """Both variants look tokens up in one data file."""
    assert "onnx/model_int8.onnx_data" in built.manifest.variants[1].files
    places = []
    for variant in built.manifest.variants:
        graph = onnx.load(built.directory / variant.graph, load_external_data=False).graph
        tensor = max(graph.initializer, key=lambda item: int(np.prod(item.dims)))
        places.append({entry.key: entry.value for entry in tensor.external_data})
    assert places[0] == places[1]
    assert places[0]["location"] == "model_int8.onnx_data"


def test_a_text_answers_alike_in_any_batch(built: Built) -> None:
    texts = [f"{text} {word}" for text in TEXTS for word in ("plot", "", "42 " * 9)]
    classifier = Classifier.load(built.directory, variant="int4")
    together = classifier.logits(texts)
    alone = np.concatenate([classifier.logits([text]) for text in texts])
    assert np.array_equal(together, alone)
