"""The exported graph: its signature, its cleanliness, and how little it takes to make it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest

from trimexport.graph.classifier import split_prefix
from trimexport.graph.trace import OPSET
from trimexport_runtime import read_manifest
from trimexport_runtime.backends.onnxruntime import session_options

MEASURE = """
import resource, sys
from pathlib import Path
from transformers import GemmaConfig
from trimexport.graph.classifier import CompiledClassifier
from trimexport.graph.prefix_attention import STEADY
from trimexport.graph.trace import trace
from trimexport.model.head import TrimmedHead
from trimexport.source.checkpoint import Checkpoint
from trimexport.source.empty_model import make_skeleton

config = GemmaConfig(num_hidden_layers=2)  # otherwise of Gemma 7B's shape: 256,000 x 3,072
model = make_skeleton(Checkpoint(Path("."), "", None, config, "GemmaForCausalLM", {}), STEADY)
size = sum(p.numel() * 4 for p in model.parameters())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
head = TrimmedHead(3072, 2, None)
graph = trace(CompiledClassifier(model.base_model, head, (1, 1), 0, (2,), (4, 5)))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(size, (after - before) * 1024)
"""


@pytest.fixture(scope="module")
def model(sentiment: Path) -> onnx.ModelProto:
    return onnx.load(sentiment / "onnx" / "model.onnx", load_external_data=False)


def shape(value: onnx.ValueInfoProto) -> list[str | int]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_param or dim.dim_value for dim in dims]


def test_signature_is_an_ordinary_classifiers(model: onnx.ModelProto) -> None:
    inputs = {value.name: value for value in model.graph.input}
    assert set(inputs) == {"input_ids", "attention_mask"}
    for value in inputs.values():
        assert value.type.tensor_type.elem_type == onnx.TensorProto.INT64
        assert shape(value) == ["batch", "sequence"]
    (output,) = model.graph.output
    assert output.name == "logits"
    assert output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert shape(output) == ["batch", 2]


def test_standard_operators_of_the_recorded_opset(model: onnx.ModelProto, sentiment: Path) -> None:
    assert {item.domain: item.version for item in model.opset_import} == {"": OPSET}
    assert read_manifest(sentiment).variants[0].opset == OPSET
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions


def test_nothing_is_left_of_the_tracing(model: onnx.ModelProto) -> None:
    """No casts to a type a value has already, no sequence operators, and no path of the machine
    that built it."""
    counts = Counter(node.op_type for node in model.graph.node)
    for banned in (
        "CastLike",
        "Identity",
        "Constant",
        "SplitToSequence",
        "SequenceAt",
        "If",
        "Loop",
    ):
        assert counts[banned] == 0
    produced = {name for node in model.graph.node for name in node.output}
    used = {name for node in model.graph.node for name in node.input}
    assert produced - used == {"logits"}
    assert {init.name for init in model.graph.initializer} <= used
    assert b"site-packages" not in model.SerializeToString()


def test_shapes_are_measured_before_the_layers(model: onnx.ModelProto) -> None:
    """What is measured are the inputs and what is made of them alone, so that no number of layers
    adds a measurement."""
    behind = {"body.embed_tokens.weight"}
    for node in model.graph.node:  # in the order in which they run
        if behind & set(node.input):
            behind |= set(node.output)
    assert "logits" in behind
    measured = [node.input[0] for node in model.graph.node if node.op_type == "Shape"]
    assert measured
    assert not behind & set(measured)


def test_int8_has_standard_operators_which_onnxruntime_fuses(
    sentiment_int8: Path, tmp_path: Path
) -> None:
    """Each MatMulInteger with its Cast and its Mul becomes one operator when the graph is loaded,
    its weights as they are; and the graph as it lies in the bundle needs no operator of ONNX
    Runtime's own."""
    path = sentiment_int8 / read_manifest(sentiment_int8).variants[0].graph
    written = onnx.load(path, load_external_data=False)
    assert {item.domain: item.version for item in written.opset_import} == {"": OPSET}
    before = operators(written)
    assert {domain for domain, _ in before} == {""}
    products = before["", "MatMulInteger"]
    assert products == 7 * 2  # of each layer

    options = session_options()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx", load_external_data=False)
    after = operators(optimised)
    assert after["", "MatMulInteger"] == 0
    assert after["com.microsoft", "MatMulIntegerToFloat"] == products
    assert before["", "Cast"] - after["", "Cast"] >= products
    kinds = {item.name: item.data_type for item in optimised.graph.initializer}
    fused = [node for node in optimised.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert {kinds[node.input[1]] for node in fused} == {onnx.TensorProto.INT8}


def operators(model: onnx.ModelProto) -> Counter[tuple[str, str]]:
    """How often a graph has each operator, by domain and name."""
    return Counter((node.domain, node.op_type) for node in model.graph.node)


def test_the_head_is_inline_and_the_weights_are_not(model: onnx.ModelProto) -> None:
    places = {init.name: init.data_location for init in model.graph.initializer}
    external = onnx.TensorProto.EXTERNAL
    assert places["head.weight"] != external
    assert places["head.bias"] != external
    assert any(place == external for place in places.values())
    for init in model.graph.initializer:
        entries = {entry.key: entry.value for entry in init.external_data}
        assert int(entries.get("offset", 0)) % 4096 == 0
        assert entries.get("location", "model.onnx_data") == "model.onnx_data"


def test_the_prefix_keeps_one_token_where_there_is_no_suffix() -> None:
    assert split_prefix((2, 5, 6), (7,)) == ((2, 5, 6), ())
    assert split_prefix((2, 5, 6), ()) == ((2, 5), (6,))
    assert split_prefix((), ()) == ((), ())


def test_tracing_does_not_hold_the_model() -> None:
    """Two layers of Gemma 7B's shape are 5 GB in float32; making their graph takes a fraction."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    size, grown = map(int, run.stdout.split())
    assert size > 5e9
    assert grown < 0.15 * size
