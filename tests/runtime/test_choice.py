"""Which variant runs when none is named, and what is known of the processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from trimexport_runtime import BackendError, BundleError, Classifier, Manifest, read_manifest
from trimexport_runtime.backends import DEFAULT, onnxruntime
from trimexport_runtime.batching import token_budget
from trimexport_runtime.choice import FASTEST_FIRST, choose
from trimexport_runtime.cpu import INSTRUCTIONS, instructions
from trimexport_runtime.render import _processor

UNSIGNED = "session.x64quantprecision"
CPU, GPU = "CPUExecutionProvider", "CUDAExecutionProvider"


def holding(manifest: Manifest, *variants: tuple[str, tuple[str, ...]]) -> Manifest:
    """The manifest with variants of the given precisions and providers."""
    one = manifest.variants[0]
    made = (
        replace(one, name=precision, precision=precision, providers=providers)
        for precision, providers in variants
    )
    return replace(manifest, variants=tuple(made))


@given(order=st.permutations(FASTEST_FIRST[DEFAULT]))
def test_the_fastest_runs(order: list[str], bundle_manifest: Manifest) -> None:
    """Whatever was built first."""
    held = holding(bundle_manifest, *((precision, (CPU,)) for precision in order))
    assert choose(held).name == "int8"
    assert choose(held, "fp32").name == "fp32"


def test_what_cannot_run_is_passed_over(bundle_manifest: Manifest) -> None:
    held = holding(bundle_manifest, ("int8", (GPU,)), ("fp16", (GPU, CPU)), ("new", ()))
    assert choose(held).name == "fp16"
    with pytest.raises(BackendError, match=r'"int8" needs CUDAExec.*use one of: fp16, new'):
        choose(held, "int8")
    with pytest.raises(BundleError, match='no variant "int4"; it has: int8, fp16, new'):
        choose(held, "int4")


def test_where_nothing_can_run_all_are_named(bundle_manifest: Manifest) -> None:
    held = holding(bundle_manifest, ("fp16", (GPU,)), ("int8", (GPU,)))
    with pytest.raises(
        BackendError, match=r"\(fp16, int8\) do not run on CPUExec.*runs on the CPU"
    ):
        choose(held)


@pytest.fixture(scope="module")
def bundle_manifest(tiny_bundle: Path) -> Manifest:
    return read_manifest(tiny_bundle)


def test_the_token_budget_changes_no_answer(bundle: Path) -> None:
    texts = ["good", "bad and long " * 9, "", "x"] * 9
    usual = Classifier.load(bundle).logits(texts)
    assert Classifier.load(bundle, token_budget=1).logits(texts) == pytest.approx(usual, abs=1e-5)
    assert [token_budget(size) for size in (0, 1_700_000, 2_500_000_000)] == [1024, 1024, 256]
    with pytest.raises(BackendError, match="token_budget is 0; give 1 or more tokens"):
        Classifier.load(bundle, token_budget=0)


def test_the_processor() -> None:
    found = instructions()
    assert found is None or set(found) <= set(INSTRUCTIONS)
    assert _processor(("avx2", "avx512_vnni")) == "avx2, avx512_vnni"
    assert "no VNNI, so int8 weights are made unsigned" in _processor(("avx2",))
    assert _processor(()) == "no vector instructions for integer products"
    assert _processor(None).startswith("not known: this system does not tell, so int8 runs as")


@pytest.mark.parametrize(
    ("found", "exact"),
    [
        (("avx2", "avx512f", "avx512_vnni"), True),
        (("avx2", "avx_vnni"), True),
        (("avx512f", "amx_int8"), True),
        (("asimddp",), True),
        (("avx2", "avx512f", "avx512_bf16"), False),
        ((), False),
        (None, False),
    ],
)
def test_weights_become_unsigned_only_where_sums_would_overflow(
    found: tuple[str, ...] | None, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs more than half of the speed elsewhere."""
    monkeypatch.setattr(onnxruntime, "instructions", lambda: found)
    options = onnxruntime.session_options(None)
    if exact:
        with pytest.raises(RuntimeError, match=UNSIGNED):  # there is no such entry
            options.get_session_config_entry(UNSIGNED)
    else:
        assert options.get_session_config_entry(UNSIGNED) == "1"


def test_the_largest_products_do_not_overflow() -> None:
    """Codes and weights of the greatest size, many of them: 16 bits would not hold two of them."""
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    weight = np.stack([np.full(64, 127), np.full(64, -127)], 1).astype(np.int8)
    graph = helper.make_graph(
        [node],
        "products",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [None, 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), onnxruntime.session_options(1))
    found = session.run(None, {"x": np.full((9, 64), 255, dtype=np.uint8)})[0]
    assert found.tolist() == [[255 * 127 * 64, -255 * 127 * 64]] * 9
