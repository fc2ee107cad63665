"""Graphs that lack what a pass or a rewrite goes by, as another release of PyTorch or transformers
may write them: each is refused in words, and never with a traceback of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch

from models import llama, save
from trimexport import ExportError
from trimexport.bundle.onnx_file import write_onnx
from trimexport.bundle.written_graph import BIAS, add_bias, remove_bias
from trimexport.bundle.written_head import read_head
from trimexport.graph.passes.fold_transposes import fold_transposes
from trimexport.graph.passes.fuse_rotary import fuse_rotary
from trimexport.graph.passes.last_token import last_token
from trimexport.graph.passes.lower import lower
from trimexport.graph.passes.name_dimensions import name_dimensions
from trimexport.graph.passes.split_gemms import split_gemms
from trimexport.graph.passes.static_reshapes import static_reshapes
from trimexport.graph.prefix_attention import PLAIN, compile_prefix
from trimexport.graph.repeat_layers import Repetition, repeat_layers
from trimexport.graph.streamed_weights import StreamedWeight
from trimexport.model.layerwise import PrefixCache
from trimexport.source.checkpoint import open_checkpoint

QUERY = "model.layers.0.self_attn.q_proj.weight"  # a square matrix, 64 x 64


def graph(text: str) -> ir.Model:
    """A graph from ONNX's textual form: inputs, outputs, other values, nodes."""
    return ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 23]> g {text}')


def picked(table: str = "[T, 4]", x: str = ", float[B, T, 4] x", **nodes: str) -> str:
    """A graph that picks tokens of x, the product of hidden states and a table, with the table's
    shape, x's and other nodes than `last_token` goes by."""
    high = nodes.get("high", "Unsqueeze(at, two)")
    wide = nodes.get("wide", "Expand(high, size)")
    return f"""(int64[B, S] ids, float[B, T, 4] h, float{table} u, int64[B, 2] at)
        => (float[B, 2, 4] y)
        <int64[1] two = {{2}}, int64[3] size = {{1, 2, 4}}, float{table} t{x}> {{
        t = Softplus(u)
        x = Mul(h, t)
        high = {high}
        wide = {wide}
        p = GatherElements<axis = 1>(x, wide)
        y = Softplus(p)
    }}"""


@pytest.mark.parametrize(
    ("apply", "text", "lacked"),
    [
        (name_dimensions, "() => (int64[1] y) {y = Constant<value_ints = [1]>()}", "an input for"),
        (
            name_dimensions,
            "(int64[B] ids) => (int64[B] y) {y = Neg(ids)}",
            r"2 dimensions of ids, which is \[B\]",
        ),
        (
            static_reshapes,
            "(float[B] x) => (float[B] y) {y = Reshape(x, )}",
            "input 1 of Reshape",
        ),
        (
            last_token,
            "(int64[B, S] ids) => (int64[B, S] y) {y = Neg(ids)}",
            "a GatherElements that picks the tokens that the head reads",
        ),
        (last_token, picked(wide="Identity(size)"), "the Expand that makes wide"),
        (last_token, picked(high="Identity(at)"), "the Unsqueeze that makes high"),
        (last_token, picked(x=""), "the shape of x"),
        (last_token, picked(x=", float[T, 4] x"), r"3 dimensions of x, which is \[T,4\]"),
        (last_token, picked("[B, 3, S]"), r"a row for each token in t \[B,3,S\]"),
        (last_token, picked("[3, T, 4]"), r"a row for each token in t \[3,T,4\]"),
        (
            lower,
            "(float[B, 4] x, float[4] w) => (float[B, 4] y) {y = RMSNormalization(x, w)}",
            "the epsilon of RMSNormalization",
        ),
        (
            lower,
            "(float[B, 4] x, float[4] w) => (float[B, 4] y) "
            "{h = Neg(x) y = RMSNormalization<epsilon = 0.1>(h, w)}",
            "the shape of h",
        ),
        (
            lower,
            "(float[B, 1, T, N] x, float[B, T, 2] c) => (float[B, 1, T, N] y) "
            "{y = RotaryEmbedding(x, c, c)}",
            "a fixed last size of x",
        ),
        (
            lower,
            "(float[B, 1, T, 4] x, float[T, 2] c) => (float[B, 1, T, 4] y) "
            "{y = RotaryEmbedding(x, c, c)}",
            r"3 dimensions of c, which is \[T,2\]",
        ),
        (lower, "(int64[B] x) => (int64[B] y) {y = Clip(x)}", "a bound of Clip"),
        (
            lower,
            "(int64[T] x) => (int64[T] y) <int64[1] axis = {0}> {y = CumSum(x, axis)}",
            r"2 dimensions of y, which is \[T\]",
        ),
    ],
)
def test_what_a_pass_misses_is_said(
    apply: Callable[[ir.Model], None], text: str, lacked: str
) -> None:
    with pytest.raises(ExportError, match=f"lacks {lacked}"):
        apply(graph(text))


def test_the_graph_that_lacks_nothing() -> None:
    """What the rows above of `last_token` change is what it stumbles over."""
    model = graph(picked())
    last_token(model)
    assert [node.op_type for node in model.graph].count("Gather") == 1


ROTARY = """(int64[B, S] ids, float[B, 2, T, 4] x, float[1, 1, T, 4] c, float[1, 1, T, 4] s)
    => (float[B, 2, T, 4] y)
    <int64[1] zero = {0}, int64[1] two = {2}, int64[1] four = {4}, int64[1] last = {-1},
     float[B, 2, T, 2] one, float[B, 2, T, 2] other> {
    straight = Mul(x, c)
    one = Slice(x, zero, two, last)
    other = Slice(x, two, four, last)
    back = Neg(other)
    turned = Concat<axis = -1>(back, one)
    crossed = Mul(turned, s)
    y = Add(straight, crossed)
}"""


def test_a_rotary_table_that_no_node_computes_is_said() -> None:
    with pytest.raises(ExportError, match="lacks a node that computes the rotary table c"):
        fuse_rotary(graph(ROTARY))


def test_a_rotary_half_without_a_shape_is_said() -> None:
    with pytest.raises(ExportError, match="lacks the shape of one"):
        fuse_rotary(graph(ROTARY.replace("float[B, 2, T, 2] one, ", "")))


def streaming(text: str, tmp_path: Path) -> ir.Model:
    """A graph whose last input is a matrix that streams from a checkpoint."""
    model = graph(text)
    checkpoint = open_checkpoint(save(llama(), tmp_path), "", None)
    weight = model.graph.inputs.pop()
    weight.const_value = StreamedWeight(checkpoint, QUERY, False, weight.name or "")
    model.graph.register_initializer(weight)
    return model


GEMM = """(float[B, T, 64] x, float[64] b, float[64, 64] w) => (float[B, T, 64] y)
    <int64[2] rows = {-1, 64}, int64[3] tokens = {0, -1, 64}> {
    flat = Reshape(x, rows)
    product = Gemm(flat, w, b)
    shaped = Reshape(product, tokens)
    y = Neg(shaped)
}"""


@pytest.mark.parametrize(
    ("old", "new", "lacked"),
    [
        ("Gemm(", "Gemm<transB = 1>(", "a plain product in Gemm"),
        ("Gemm(", "Gemm<alpha = 0.5>(", "a plain product in Gemm"),
        ("w, b)", "w)", "input 2 of Gemm"),
        ("flat = Reshape(x, rows)", "flat = Identity(x)", "the Reshape that makes flat"),
        ("= Reshape(product, tokens)", "= Neg(product)", "a Reshape that reads Gemm"),
    ],
)
def test_what_is_missing_around_a_gemm_is_said(
    tmp_path: Path, old: str, new: str, lacked: str
) -> None:
    assert old in GEMM
    with pytest.raises(ExportError, match=f"lacks {lacked}"):
        split_gemms(streaming(GEMM.replace(old, new), tmp_path))


def test_a_plain_gemm_is_split(tmp_path: Path) -> None:
    """What the tests above change is what the pass stumbles over."""
    model = streaming(GEMM.replace("Gemm(", "Gemm<alpha = 1.0, transB = 0>("), tmp_path)
    split_gemms(model)
    assert "MatMul" in [node.op_type for node in model.graph]


def test_a_transposition_that_does_not_say_its_order(tmp_path: Path) -> None:
    signature = "(float[B, 64] x, float[64, 64] w) => (float[B, 64] y)"
    text = signature + "{t = Transpose(w) y = MatMul(x, t)}"
    with pytest.raises(ExportError, match="lacks the order of Transpose"):
        fold_transposes(streaming(text, tmp_path))


def test_layers_that_left_no_trace_are_said() -> None:
    model = graph("(int64[B, S] ids) => (int64[B, S] y) {y = Neg(ids)}")
    with pytest.raises(ExportError, match=r"lacks nodes that come from body\.layers\.0"):
        repeat_layers(model, "body.", Repetition("layers", (0, 0), 4))


def test_a_layer_that_no_hidden_states_enter_is_said() -> None:
    model = graph("(int64[B, S] ids, float[B, S, 3] h) => (float[B, S, 3] y) {y = Neg(h)}")
    next(iter(model.graph)).metadata_props["pkg.torch.onnx.name_scopes"] = "['body.layers.0']"
    with pytest.raises(ExportError, match=r"lacks hidden states \[batch, sequence, 4\]"):
        repeat_layers(model, "body.", Repetition("layers", (0, 0), 4))


def test_a_prefix_that_is_not_there_for_every_layer_is_said() -> None:
    one = (torch.zeros(2, 3, 4),)
    with pytest.raises(ExportError, match="lacks the prefix's keys in each of 2 layers"):
        compile_prefix(llama().model, PrefixCache(one, one), PLAIN)


def test_a_constant_without_numbers_is_said(tmp_path: Path) -> None:
    model = graph("(float[64] w) => (float[64] y) {y = Neg(w)}")
    model.graph.initializers.add(model.graph.inputs.pop())
    with pytest.raises(ExportError, match="lacks the numbers of w"):
        write_onnx(model, tmp_path / "graph.onnx", tmp_path / "graph.data")


WRITTEN = """<ir_version: 10, opset_import: ["" : 23]>
g (float[B, 2] hidden) => (float[B, 2] logits)
    <float[2, 2] "head.weight" = {1, 2, 3, 4}, float[2] "head.bias" = {5, 6}> {
    logits = Gemm<transB = 1>(hidden, "head.weight", "head.bias")
}"""


@pytest.mark.parametrize(
    ("old", "new", "lacked"),
    [
        ("Gemm<transB = 1>", "Add", "trimmed head"),
        ('"head.weight"', '"lm.weight"', "trimmed head"),
        (', float[2] "head.bias" = {5, 6}', "", 'constant "head.bias"'),
        ('float[2, 2] "head.weight" = {1, 2, 3, 4}, ', "", 'constant "head.weight"'),
    ],
)
def test_a_graph_without_a_whole_head_is_said(old: str, new: str, lacked: str) -> None:
    assert read_head(onnx.parser.parse_model(WRITTEN)).bias.tolist() == [5, 6]
    assert old in WRITTEN
    with pytest.raises(ExportError, match=f"has no {lacked}, so it is none that trimexport wrote"):
        read_head(onnx.parser.parse_model(WRITTEN.replace(old, new)))


def test_a_graph_without_logits_gets_no_bias() -> None:
    model = onnx.parser.parse_model(WRITTEN.replace("logits", "scores"))
    with pytest.raises(ExportError, match=r'no node that makes "logits".*build the bundle'):
        add_bias(model, (1.0, 2.0))


def test_a_bias_that_is_half_there_is_not_taken_away() -> None:
    model = onnx.parser.parse_model(WRITTEN)
    add_bias(model, (1.0, 2.0))
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == BIAS)
    model.graph.initializer.remove(bias)
    with pytest.raises(ExportError, match=f'has no constant "{BIAS}"'):
        remove_bias(model)
