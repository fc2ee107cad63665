"""`build --tensorrt` and `verify --backends` on the command line."""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import tiny
from packages import needs_wheels, oldest_transformers
from trimexport import BuildSpec, read_recipe
from trimexport import build as build_bundle
from trimexport.bench.subjects import for_cpus
from trimexport_runtime import read_manifest
from trimexport_runtime.profiles import profiles_for

Invoke = Callable[..., Result]
LABELS = ("--labels", "positive,negative", "--prompt", tiny.PROMPT)


@pytest.fixture
def without_tensorrt() -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        return
    pytest.skip("TensorRT is installed")


def build(invoke: Invoke, model: Path, *options: object) -> Result:
    result = invoke("build", "--model", model, *LABELS, *options, "-o", "out")
    assert result.exit_code == 0, result.output
    return result


def test_engines_need_tensorrt(
    tiny_refused: Callable[..., str], tiny_model: Path, without_tensorrt: None
) -> None:
    """Refused before anything is done, with what to install and what else there is."""
    command = ("build", "--model", tiny_model, *LABELS, "--tensorrt", "fp16", "-o", "out")
    said = tiny_refused(*command)
    assert "TensorRT is not here" in said
    assert "install `trimexport-runtime[tensorrt]`" in said
    assert "with --tensorrt-onnx-only and build the engines where they will run" in said
    assert "tracing" not in said


@pytest.mark.parametrize("names", ["int4", "fp16,fp16", "", "tensorrt-fp16"])
def test_wrong_precisions(tiny_refused: Callable[..., str], tiny_model: Path, names: str) -> None:
    command = ("build", "--model", tiny_model, *LABELS, "--tensorrt", names, "-o", "out")
    said = tiny_refused(*command)
    assert "cannot be built; give each of fp16, int8 once at most" in said


def test_graphs_alone(tiny_invoke: Invoke, tiny_model: Path) -> None:
    """Both graphs, and the commands that build their engines."""
    result = build(tiny_invoke, tiny_model, "--tensorrt-onnx-only", "--precision", "fp32")
    assert "calibrating tensorrt-int8 on the 48 texts that ship; give it texts" in result.stderr
    manifest = read_manifest(Path("out"))
    assert [it.name for it in manifest.variants] == ["fp32", "tensorrt-fp16", "tensorrt-int8"]
    for variant in manifest.variants[1:]:
        assert (variant.opset, variant.operators, variant.engine) == (20, ("ai.onnx",), None)
        assert f"trimexport-run build-engines out --variant {variant.name}" in result.stdout
    lines = [line for line in result.stdout.splitlines() if line.startswith("  trtexec ")]
    assert len(lines) == 4
    assert ["--stronglyTyped" in line for line in lines] == [True, False, True, False]
    words = shlex.split(lines[0])
    assert "--onnx=onnx/model_tensorrt_fp16.onnx" in words
    assert "--saveEngine=tensorrt-fp16.plan" in words
    assert lines[0].strip() in Path("out/README.md").read_text(encoding="utf-8"), "the card"
    assert [it.name for it in for_cpus(manifest)] == ["fp32"], "what bench measures"
    profiles = profiles_for(manifest.text_limit.tokens)
    shown = [word for word in words if word.startswith(("--profile=", "--maxShapes="))]
    assert shown == [
        option
        for place, profile in enumerate(profiles)
        for rows, width in [profile.max]
        for option in (
            f"--profile={place}",
            f"--maxShapes=input_ids:{rows}x{width},attention_mask:{rows}x{width}",
        )
    ]


def test_a_recipe_may_ask_for_engines(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('model = "m"\ntensorrt = ["fp16"]\n', encoding="utf-8")
    assert read_recipe(recipe).variants == ("int8", "tensorrt-fp16")


@pytest.fixture(scope="module")
def gpu_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's bundle in int8 and with graphs for TensorRT, without engines."""
    spec = BuildSpec(
        model=str(tiny.tiny_model()),
        labels=("positive", "negative"),
        prompt=tiny.PROMPT,
        precision=("fp32", "int8"),
        tensorrt=("int8", "fp16"),
    )
    target = tmp_path_factory.mktemp("gpu") / "bundle"
    return build_bundle(spec, target, engines=False).directory


def test_what_did_not_run_is_no_pass(
    tiny_invoke: Invoke, gpu_bundle: Path, without_tensorrt: None
) -> None:
    every = tiny_invoke("verify", gpu_bundle, "--backends", "all", "--json")
    assert every.exit_code == 0, every.output
    found = json.loads(every.stdout)
    ran = {(it["name"], it["backend"]) for it in found["variants"]}
    assert ran >= {
        ("trimmed", "pytorch"),
        ("fp32", "onnxruntime"),
        ("tensorrt-fp16", "onnxruntime"),
    }
    missing = {(it["name"], it["backend"]): it["reason"] for it in found["not_run"]}
    assert not ran & set(missing)
    assert "has no TensorRT engine" in missing["tensorrt-fp16", "tensorrt"]
    assert ("tensorrt-fp16", "onnxruntime-cuda") in ran | set(missing)

    page = (gpu_bundle / "reports" / "parity.html").read_text(encoding="utf-8")
    assert "<td>NOT RUN</td>" in page

    named = tiny_invoke("verify", gpu_bundle, "--backends", "onnxruntime,tensorrt")
    assert named.exit_code == 1
    assert "tensorrt-fp16 on tensorrt did not run: variant" in named.stderr
    assert "NOT RUN" in named.stdout
    assert "tensorrt-fp16 on tensorrt did not run: variant" in named.stdout


def test_a_bundle_with_nothing_for_a_backend(tiny_invoke: Invoke, tiny_bundle: Path) -> None:
    result = tiny_invoke("verify", tiny_bundle, "--backends", "onnxruntime-cuda")
    assert result.exit_code == 1
    assert "no variant on onnxruntime-cuda did not run: the bundle's variants" in result.stderr


def test_backends_that_are_none(tiny_refused: Callable[..., str], tiny_bundle: Path) -> None:
    said = tiny_refused("verify", tiny_bundle, "--backends", "onnxruntime,cuda", code=2)
    assert "--backends takes pytorch, onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt" in said


def python_with(tmp_path: Path, *directories: Path) -> Path:
    """A program that is Python with these directories in front."""
    program = tmp_path / "python"
    path = os.pathsep.join(map(str, directories))
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
def test_optimum_answers_as_the_reference_does(
    tiny_invoke: Invoke, gpu_bundle: Path, tmp_path: Path
) -> None:
    """Optimum's own class and the bundle's own tokenizer, on the oldest transformers."""
    python = python_with(tmp_path, oldest_transformers(), needs_wheels("optimum"))
    backends = ("--backends", "optimum,onnxruntime", "--optimum-python", python)
    result = tiny_invoke("verify", gpu_bundle, *backends, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["variants"]
    ours, found = (
        {it["name"]: it for it in rows if it["backend"] == backend}
        for backend in ("onnxruntime", "optimum")
    )
    assert list(found) == ["fp32", "int8", "tensorrt-int8", "tensorrt-fp16"]
    assert found["fp32"]["max_logit_difference"] < 1e-3
    assert found["tensorrt-int8"]["within_tolerance"]
    difference = ours["int8"]["max_logit_difference"]
    assert found["int8"]["max_logit_difference"] == pytest.approx(difference, abs=1e-5)


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("/nowhere/python", "/nowhere/python cannot be run"),
        ("false", "false failed: it says no more"),
        ("true", "true gave no answer; name a Python"),
        (sys.executable, "pip install 'optimum-onnx[onnxruntime]' 'transformers<4.58' torch"),
    ],
)
def test_an_environment_without_optimum(
    tiny_invoke: Invoke, tiny_bundle: Path, python: str, said: str
) -> None:
    command = ("verify", tiny_bundle, "--backends", "optimum", "--optimum-python", python)
    result = tiny_invoke(*command)
    if result.exit_code == 0:
        pytest.skip("Optimum is installed")
    assert result.exit_code == 1
    assert said in result.stderr
