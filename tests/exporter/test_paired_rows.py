"""int8 weights of which no two overflow where a processor adds them in 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pairs import assert_pairs_fit, largest_sum
from trimexport.quantize.paired_rows import PAIR, compensated_rows, nearest_rows
from trimexport.quantize.second_moments import SecondMoments
from trimexport_runtime import read_manifest

UNSIGNED = "session.x64quantprecision"  # ONNX Runtime's own way around such sums


def product(weight: npt.NDArray[np.int8]) -> ort.InferenceSession:
    """Unsigned codes [rows, inputs] times signed weights [inputs, outputs], as int8 multiplies."""
    inputs, outputs = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w", "zero"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [None, outputs])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.array(128, dtype=np.uint8), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("inputs", [2, 63, 65, 576, 641, 2048])
def test_pairs_at_the_limit_are_exact_on_this_processor(inputs: int) -> None:
    """The first and the second of every pair, the third and the fourth: it is these that are added,
    in products of any size."""
    rng = np.random.default_rng(inputs)
    first = rng.integers(1, PAIR, (inputs // 2 + 1, 33))
    pairs = np.stack([first, PAIR - first], 1).reshape(-1, 33)[:inputs]
    pairs *= np.repeat(rng.choice([-1, 1], (len(first), 33)), 2, axis=0)[:inputs]
    weight = pairs.astype(np.int8)
    assert largest_sum(weight) == (255 * PAIR if inputs > 1 else 0)
    session = product(weight)
    for rows in (1, 2, 3, 7, 29, 70):
        for codes in (np.full((rows, inputs), 255), rng.choice([0, 1, 255], (rows, inputs))):
            (found,) = session.run(None, {"x": codes.astype(np.uint8)})
            assert np.array_equal(found, (codes - 128) @ weight.astype(np.int64))


numbers = st.sampled_from([0.0, 1e-20, 0.4, -0.7, 1.0, -1.0, 3.0, -8.0, 1e20])


@given(rows=st.lists(st.lists(numbers, min_size=5, max_size=5), min_size=1, max_size=4))
def test_no_row_overflows(rows: list[list[float]]) -> None:
    """Rows of zeros, of one large weight, of weights that are all alike."""
    part = torch.tensor(rows)
    for codes, scales in (nearest_rows(part), compensated_rows(part, [torch.eye(5)])):
        assert codes.dtype == torch.int8
        assert codes.shape == part.shape
        assert bool((scales > 0).all())
        assert largest_sum(codes.T.numpy()) < 2**15


def test_hardly_anything_is_cut() -> None:
    """Beside codes that may be anything the error grows by less than a half; seven bits for each
    weight would double it."""
    torch.manual_seed(0)
    part = torch.randn(64, 512)
    codes, scales = nearest_rows(part)
    free = part.abs().amax(1) / 127
    wrong = (part - codes * scales[:, None]).norm()
    assert wrong < 1.5 * (part - torch.round(part / free[:, None]) * free[:, None]).norm()


def test_later_inputs_make_up_for_what_is_cut(tmp_path: Path) -> None:
    torch.manual_seed(0)
    mixed = torch.randn(512, 24) @ torch.randn(24, 64) + 0.1 * torch.randn(512, 64)
    moments = SecondMoments(tmp_path)
    moments.add("body.layers.0.up", mixed)
    moments.flush()
    part = torch.randn(32, 64)
    part[:, ::2] = part[:, 1::2]  # pairs that are large together
    missed = []
    for codes, scales in (
        nearest_rows(part),
        compensated_rows(part, moments.factors("body.layers.0.up")),
    ):
        assert largest_sum(codes.T.numpy()) < 2**15
        missed.append(float((mixed @ (part - codes * scales[:, None]).T).norm()))
    assert missed[1] < 0.7 * missed[0]


def test_a_bundle_needs_no_guard(sentiment_int8: Path) -> None:
    """With ONNX Runtime's guard, whose products are exact on every processor, its answers are the
    same bits."""
    assert_pairs_fit(sentiment_int8)
    graph = str(sentiment_int8 / read_manifest(sentiment_int8).variant("int8").graph)
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 8000, (5, 40))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    answers = []
    for guarded in ("0", "1"):
        options = ort.SessionOptions()
        options.add_session_config_entry(UNSIGNED, guarded)
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        answers.append(session.run(["logits"], feed)[0])
    assert np.array_equal(*answers)
    assert answers[0].std() > 0.1
