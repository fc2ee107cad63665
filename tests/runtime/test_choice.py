"""Which variant runs when none is named, and what is known of the processor."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from trimexport_runtime import (
    BackendError,
    BundleError,
    Classifier,
    Manifest,
    cpu,
    read_manifest,
)
from trimexport_runtime.backends import DEFAULT
from trimexport_runtime.backends.onnxruntime import session_entries, session_options
from trimexport_runtime.batching import token_budget
from trimexport_runtime.choice import FASTEST_FIRST, choose
from trimexport_runtime.cli import main
from trimexport_runtime.cpu import GUARD, INSTRUCTIONS, adds_exactly, instructions
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


X64, VNNI, OLDER = "x86_64", ("avx2", "avx512f", "avx512_vnni"), ("avx2", "avx512f", "avx512_bf16")
NEON = ("asimddp",)


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make this a machine of a kind, whose processor has some instructions, with the guard forced
    or not."""

    def make(machine: str, found: tuple[str, ...] | None, forced: str | None) -> None:
        monkeypatch.setattr(platform, "machine", lambda: machine)
        monkeypatch.setattr(cpu, "instructions", lambda: found)
        monkeypatch.delenv(GUARD, raising=False)
        if forced is not None:
            monkeypatch.setenv(GUARD, forced)

    return make


def test_instructions() -> None:
    found = instructions()
    assert found is None or set(found) <= set(INSTRUCTIONS)


SLOWER = "so int8 weights are made unsigned when they are loaded, and run slower"


@pytest.mark.parametrize(
    ("machine", "found", "forced", "said"),
    [
        (X64, VNNI, None, "avx2, avx512f, avx512_vnni"),
        (X64, OLDER, None, f"avx2, avx512f, avx512_bf16; no VNNI, {SLOWER}"),
        (X64, (), None, f"no vector instructions for integer products; no VNNI, {SLOWER}"),
        ("AMD64", None, None, f"not known: this system does not tell, {SLOWER}"),
        (X64, ("avx_vnni",), "on", f"avx_vnni; TRIMEXPORT_INT8_GUARD=on, {SLOWER}"),
        (
            X64,
            ("avx_vnni",),
            "off",
            "avx_vnni; TRIMEXPORT_INT8_GUARD=off, so int8 weights stay signed",
        ),
        (
            X64,
            ("avx2",),
            "off",
            "avx2; TRIMEXPORT_INT8_GUARD=off, so int8 weights stay signed and sums may overflow",
        ),
        ("aarch64", NEON, None, "asimddp"),
        ("arm64", None, None, "not known: this system does not tell"),
        (
            "aarch64",
            NEON,
            "on",
            "asimddp; TRIMEXPORT_INT8_GUARD is set, which only x64 processors heed",
        ),
    ],
)
def test_what_info_says_of_the_processor(
    processor: Callable[..., None],
    machine: str,
    found: tuple[str, ...] | None,
    forced: str | None,
    said: str,
) -> None:
    processor(machine, found, forced)
    assert _processor(found) == said


@pytest.mark.parametrize(
    ("machine", "found", "forced", "guarded"),
    [
        (X64, VNNI, None, False),
        (X64, ("avx2", "avx_vnni"), None, False),
        (X64, ("avx512f", "amx_int8"), None, False),
        (X64, OLDER, None, True),
        (X64, (), None, True),
        (X64, None, None, True),
        (X64, VNNI, "", False),
        (X64, OLDER, "", True),
        (X64, VNNI, "on", True),
        (X64, OLDER, "off", False),
        ("AMD64", None, None, True),
        ("arm64", None, None, False),
        ("aarch64", NEON, None, False),
        ("aarch64", (), None, False),
        ("aarch64", NEON, "on", False),
    ],
)
def test_weights_become_unsigned_only_where_sums_would_overflow(
    processor: Callable[..., None],
    machine: str,
    found: tuple[str, ...] | None,
    forced: str | None,
    guarded: bool,
) -> None:
    """Elsewhere it costs more than half of the speed. Only int8 has such sums, and of static Q/DQ
    pairs ONNX Runtime makes a graph that fails."""
    processor(machine, found, forced)
    assert session_entries("int8") == ({UNSIGNED: "1"} if guarded else {})
    if guarded:
        assert session_options("int8").get_session_config_entry(UNSIGNED) == "1"
    for precision in {name for order in FASTEST_FIRST.values() for name in order} - {"int8"}:
        assert session_entries(precision) == {}
        with pytest.raises(RuntimeError, match=UNSIGNED):  # there is no such entry
            session_options(precision).get_session_config_entry(UNSIGNED)


def test_a_guard_that_is_neither_on_nor_off(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GUARD, "1")
    said = 'TRIMEXPORT_INT8_GUARD is "1"; set it to on or off, or unset it and the processor'
    with pytest.raises(BackendError, match=said):
        session_options("int8")
    result = CliRunner().invoke(main, ["info", str(tiny_bundle)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr


def test_info_says_that_the_guard_is_forced(tiny_bundle: Path, guard: str) -> None:
    shown = CliRunner().invoke(main, ["info", str(tiny_bundle), "--json"]).stdout
    found = {"on": guard == "on" and cpu.is_x64(), "forced": True}
    assert json.loads(shown)["runtime"]["int8_guard"] == found
    assert f"; {GUARD}" in CliRunner().invoke(main, ["info", str(tiny_bundle)]).stdout


@pytest.mark.parametrize("forced", [None, "on", "off"])
def test_the_largest_products_do_not_overflow(
    forced: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes and weights of the greatest size, many of them: 16 bits would not hold two of them. As
    this processor is run, and with the guard on any; without it where sums are exact."""
    monkeypatch.delenv(GUARD, raising=False)
    if forced is not None:
        monkeypatch.setenv(GUARD, forced)
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
    session = ort.InferenceSession(model.SerializeToString(), session_options("int8", 1))
    found = session.run(None, {"x": np.full((9, 64), 255, dtype=np.uint8)})[0]
    exact = forced != "off" or adds_exactly(instructions())
    assert not exact or found.tolist() == [[255 * 127 * 64, -255 * 127 * 64]] * 9
