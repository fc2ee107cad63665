"""Which variant runs when none is named, and what is known of the processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from trimexport_runtime import (
    BackendError,
    BundleError,
    Classifier,
    Manifest,
    read_manifest,
    render,
)
from trimexport_runtime.backends import DEFAULT
from trimexport_runtime.batching import token_budget
from trimexport_runtime.choice import FASTEST_FIRST, choose
from trimexport_runtime.cli import main
from trimexport_runtime.cpu import INSTRUCTIONS, instructions

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
    assert [token_budget(size) for size in (0, 1_700_000, 2_500_000_000)] == [1024, 1024, 384]
    assert token_budget(278_700_000) == 384  # Gemma 3 270M
    with pytest.raises(BackendError, match="token_budget is 0; give 1 or more tokens"):
        Classifier.load(bundle, token_budget=0)


def test_instructions() -> None:
    found = instructions()
    assert found is None or set(found) <= set(INSTRUCTIONS)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (("avx2", "avx512f", "avx512_vnni"), "avx2, avx512f, avx512_vnni"),
        ((), "no vector instructions for integer products"),
        (None, "not known: this system does not tell"),
    ],
)
def test_what_info_says_of_the_processor(
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    found: tuple[str, ...] | None,
    said: str,
) -> None:
    monkeypatch.setattr(render, "instructions", lambda: found)
    shown = CliRunner().invoke(main, ["info", str(tiny_bundle)]).stdout
    assert said in " ".join(shown.split())
