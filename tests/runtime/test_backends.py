"""Backends other than the CPU's: which variant they run, what they say where they are not, and that
nothing stands in for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from click.testing import CliRunner

from packages import needs_wheels, run_with
from trimexport_runtime import (
    BackendError,
    BundleError,
    Classifier,
    IntegrityError,
    Manifest,
    read_manifest,
)
from trimexport_runtime.backends import DEFAULT, PROVIDERS
from trimexport_runtime.backends.onnxruntime import run_bound, session_options, tensorrt_options
from trimexport_runtime.backends.providers import misplaced
from trimexport_runtime.backends.tensorrt import require_fitting
from trimexport_runtime.bundle import Engine, Profile
from trimexport_runtime.choice import choose
from trimexport_runtime.cli import main
from trimexport_runtime.cuda import Gpu
from trimexport_runtime.engine import candidates, keep_engine
from trimexport_runtime.integrity import check_engine
from trimexport_runtime.profiles import single_profile

MakeBundle = Callable[..., Path]
CPU, CUDA, TENSORRT = list(PROVIDERS.values())[:3]
ENGINE = Engine(
    file="tensorrt/model_fp16.plan",
    bytes=4,
    sha256="0" * 64,
    tensorrt="10.3.0",
    compute_capability="8.7",
    gpu="Orin",
    profiles=(Profile(opt=(1, 32), max=(1, 512)),),
    built_from={},
)
ORIN = Gpu("Orin", "8.7")


@pytest.fixture
def gpu_bundle(
    make_bundle: MakeBundle, with_variants: Callable[..., Callable[[Manifest], Manifest]]
) -> Path:
    """A bundle with variants for GPUs, one of them with an engine."""
    change = with_variants(
        **{
            "fp16": {"precision": "fp16", "providers": (CUDA, CPU)},
            "tensorrt-fp16": {"precision": "tensorrt-fp16", "providers": (TENSORRT, CUDA, CPU)},
            "tensorrt-int8": {
                "precision": "tensorrt-int8",
                "providers": (TENSORRT, CPU),
                "engine": ENGINE,
            },
        }
    )
    return make_bundle("gpu", change=change)


def test_each_backend_has_its_fastest_variant(gpu_bundle: Path) -> None:
    manifest = read_manifest(gpu_bundle)
    chosen = {backend: choose(manifest, backend=backend).name for backend in PROVIDERS}
    assert chosen == {
        "onnxruntime": "fp32",
        "onnxruntime-cuda": "fp16",
        "onnxruntime-tensorrt": "tensorrt-int8",
        "tensorrt": "tensorrt-int8",
    }
    with pytest.raises(
        BackendError, match=r"needs CPUExec.*is CUDAExec.*use one of: fp16, tensorrt-fp16"
    ):
        choose(manifest, "fp32", "onnxruntime-cuda")
    with pytest.raises(BackendError, match=r'"fp16" has no TensorRT engine; use one of: tensorrt-'):
        choose(manifest, "fp16", "tensorrt")
    with pytest.raises(BackendError, match='no backend "cuda"; use one of: onnxruntime, onnx'):
        choose(manifest, backend="cuda")


@pytest.mark.parametrize(
    ("backend", "remedy"),
    [
        ("onnxruntime-cuda", r"\(fp32\) do not run on CUDAExec.*build --precision fp16`"),
        ("onnxruntime-tensorrt", r"do not run on TensorrtExec.*build --tensorrt fp16`"),
        ("tensorrt", "do not run on TensorRT; build its engines here with `trimexport-run build-"),
    ],
)
def test_a_bundle_without_variants_for_a_backend(bundle: Path, backend: str, remedy: str) -> None:
    with pytest.raises(BackendError, match=remedy):
        Classifier.load(bundle, backend=backend)


def test_engines_survive_the_manifest(gpu_bundle: Path) -> None:
    assert read_manifest(gpu_bundle).variant("tensorrt-int8").engine == ENGINE


@pytest.mark.parametrize(
    "damage",
    [
        {"profiles": []},
        {"profiles": [{"opt": [1], "max": [1, 2]}]},
        {"profiles": [{"opt": [0, 1], "max": [1, 2]}]},
        {"file": "../x.plan"},
        {"tensorrt": 10},
        {"built_from": None},
    ],
)
def test_damaged_engines(
    gpu_bundle: Path, edit_manifest: Callable[..., None], damage: dict[str, Any]
) -> None:
    edit_manifest(gpu_bundle, lambda raw: raw["variants"][-1]["engine"].update(damage))
    with pytest.raises(BundleError, match="is damaged"):
        read_manifest(gpu_bundle)


@pytest.mark.parametrize(
    ("version", "gpu", "said"),
    [
        ("10.3.0", ORIN, None),
        ("10.13.3", ORIN, r"is for TensorRT 10\.3\.0, this is 10\.13\.3; build it again here with"),
        ("10.3.0", Gpu("L4", "8.9"), r"for compute capability 8\.7 \(Orin\), this is 8\.9 \(L4\)"),
        ("11.4.0", Gpu("L4", "8.9"), r"TensorRT .* and for compute capability"),
    ],
)
def test_an_engine_runs_only_where_it_was_built_for(
    bundle: Path, version: str, gpu: Gpu, said: str | None
) -> None:
    manifest = read_manifest(bundle)
    engine = replace(ENGINE, built_from={it.path: it.sha256 for it in manifest.files})
    if said is None:
        require_fitting(bundle, manifest, engine, version, gpu)
        return
    with pytest.raises(BackendError, match=said) as error:
        require_fitting(bundle, manifest, engine, version, gpu)
    assert f"`trimexport-run build-engines {bundle}`" in str(error.value)


def test_an_engine_of_another_graph(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    engine = replace(ENGINE, built_from={"onnx/model.onnx": "0" * 64})
    with pytest.raises(BackendError, match="is of a graph that was changed since; build it again"):
        require_fitting(bundle, manifest, engine, "10.3.0", ORIN)


def test_an_engine_that_is_kept(gpu_bundle: Path) -> None:
    """What `build_engine` does with what TensorRT gave it, which may be any bytes."""
    before = read_manifest(gpu_bundle)
    engine = replace(ENGINE, bytes=0, sha256="")
    kept = keep_engine(gpu_bundle, "tensorrt-fp16", engine, b"a plan")
    assert kept == read_manifest(gpu_bundle)
    found = kept.variant("tensorrt-fp16").engine
    assert found is not None
    assert (gpu_bundle / found.file).read_bytes() == b"a plan"
    assert (found.bytes, found.profiles, found.tensorrt) == (6, ENGINE.profiles, "10.3.0")
    check_engine(gpu_bundle, found, hashes=True)
    assert kept.files == before.files
    assert kept.variant("tensorrt-int8").engine == ENGINE, "another build's engine stays"
    keep_engine(gpu_bundle, "tensorrt-fp16", engine, b"another")
    with pytest.raises(IntegrityError, match="is not the engine that the manifest names; build it"):
        check_engine(gpu_bundle, found, hashes=False)
    (gpu_bundle / found.file).write_bytes(b"A PLAN")
    with pytest.raises(IntegrityError, match="was altered: its SHA-256 is not the manifest's"):
        check_engine(gpu_bundle, found, hashes=True)
    (gpu_bundle / found.file).unlink()
    with pytest.raises(IntegrityError, match=r"model_fp16\.plan is missing.*build-engines"):
        check_engine(gpu_bundle, found, hashes=False)
    assert Classifier.load(gpu_bundle).classify(["good"]), "the CPU needs no engine"
    assert [path.name for path in gpu_bundle.rglob("*.partial")] == []


def test_info_checks_engines_too(gpu_bundle: Path) -> None:
    result = CliRunner().invoke(main, ["info", str(gpu_bundle), "--check"])
    assert result.exit_code == 1
    assert "model_fp16.plan is missing from the bundle; build it again with" in result.stderr


def test_the_range_of_batches_for_onnxruntimes_tensorrt() -> None:
    assert tensorrt_options(single_profile(100)) == {
        "trt_profile_min_shapes": "input_ids:1x1,attention_mask:1x1",
        "trt_profile_opt_shapes": "input_ids:81x32,attention_mask:81x32",
        "trt_profile_max_shapes": "input_ids:81x100,attention_mask:81x100",
    }
    assert single_profile(10_000).max == (1, 10_000)


def test_bound_tensors_give_the_same_logits(bundle: Path) -> None:
    session = ort.InferenceSession(str(bundle / "onnx" / "model.onnx"), session_options())
    feed = {
        "input_ids": np.array([[3, 4, 5], [6, 0, 0]]),
        "attention_mask": np.array([[1, 1, 1], [1, 0, 0]]),
    }
    assert np.array_equal(run_bound(session, feed), session.run(["logits"], feed)[0])


def test_products_elsewhere_are_seen(bundle: Path) -> None:
    """A real session on the CPU, asked as one on a GPU would be."""
    options = session_options()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(str(bundle / "onnx" / "model.onnx"), options)
    assignment = session.get_provider_graph_assignment_info()
    assert misplaced(assignment, CPU) == set()
    assert misplaced(assignment, CUDA) == {"Gemm"}, "the graph's product and sum in one"


@pytest.mark.parametrize("backend", [name for name in PROVIDERS if name != DEFAULT])
def test_a_backend_that_is_not_here_says_what_to_install(gpu_bundle: Path, backend: str) -> None:
    if PROVIDERS[backend] in ort.get_available_providers():
        pytest.skip(f"{backend} is here")
    with pytest.raises(BackendError, match=r"install `trimexport-runtime\[(gpu|tensorrt)\]`"):
        Classifier.load(gpu_bundle, backend=backend)


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_onnxruntime_does_not_go_on_with_the_cpu(gpu_bundle: Path, backend: str) -> None:
    """The real onnxruntime-gpu where its libraries or its GPU are missing, which by itself answers
    from the CPU."""
    directory = needs_wheels("onnxruntime-gpu")
    code = (
        "import sys, onnxruntime as ort\n"
        "from trimexport_runtime import BackendError, Classifier\n"
        "session = ort.InferenceSession(sys.argv[1] + '/onnx/model.onnx', "
        "providers=['CUDAExecutionProvider'])\n"
        "print(session.get_providers())\n"
        "try: print('answers', Classifier.load(sys.argv[1], backend=sys.argv[2]).provider)\n"
        "except BackendError as error: print('refuses', error)\n"
    )
    run = run_with([directory], "-c", code, str(gpu_bundle), backend)
    assert run.returncode == 0, run.stderr
    alone, ours = run.stdout.strip().splitlines()[-2:]
    if CUDA in alone:
        pytest.skip("CUDA is here")
    assert alone == f"['{CPU}']", "what this guards against"
    assert ours.startswith(f"refuses {PROVIDERS[backend]} did not start (")
    assert "it needs an NVIDIA GPU with its driver" in ours


def test_onnxruntime_for_cpus_over_the_one_for_gpus(gpu_bundle: Path, tmp_path: Path) -> None:
    """Both have the same files: pip leaves whichever came last."""
    info = tmp_path / "onnxruntime_gpu-1.31.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1\n")
    code = "from trimexport_runtime.cli import main; main()"
    command = ("-c", code, "classify", str(gpu_bundle), "good", "--backend", "onnxruntime-cuda")
    run = run_with([tmp_path], *command)
    if PROVIDERS["onnxruntime-cuda"] in ort.get_available_providers():
        pytest.skip("CUDA is here")
    assert run.returncode == 1, run.stdout
    assert "lies over it" in run.stderr
    assert "pip install --force-reinstall --no-deps onnxruntime-gpu" in run.stderr


def test_every_json_answer_names_what_computed_it(gpu_bundle: Path) -> None:
    result = CliRunner().invoke(main, ["classify", str(gpu_bundle), "--json", "good", "bad"])
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(answers) == 2
    for answer in answers:
        assert (answer["variant"], answer["provider"]) == ("fp32", CPU)
    assert Classifier.load(gpu_bundle).provider == CPU


def test_info_says_what_each_backend_would_run(gpu_bundle: Path) -> None:
    result = CliRunner().invoke(main, ["info", str(gpu_bundle), "--json"])
    shown = json.loads(result.stdout)
    backends = {it["backend"]: it for it in shown["runtime"]["backends"]}
    assert list(backends) == list(PROVIDERS)
    assert backends["onnxruntime"] == {
        "backend": "onnxruntime",
        "provider": CPU,
        "variant": "fp32",
        "reason": None,
    }
    for name, found in backends.items():
        assert (found["variant"] is None) == (found["reason"] is not None), name
    assert shown["variants"][-1]["engine"] == json.loads(json.dumps(asdict(ENGINE)))
    text = CliRunner().invoke(main, ["info", str(gpu_bundle)]).stdout
    assert "backend     onnxruntime (CPUExecutionProvider): would run fp32" in text
    assert "engine for TensorRT 10.3.0 on compute capability 8.7 (Orin)" in text


def test_engines_are_built_of_variants_for_tensorrt(bundle: Path, gpu_bundle: Path) -> None:
    with pytest.raises(BundleError, match="no variant for TensorRT; build one with `trimexport"):
        candidates(replace(read_manifest(gpu_bundle), variants=read_manifest(bundle).variants))
    found = candidates(read_manifest(gpu_bundle))
    assert [it.name for it in found] == ["tensorrt-fp16", "tensorrt-int8"]
    result = CliRunner().invoke(main, ["build-engines", str(gpu_bundle), "--variant", "fp32"])
    assert result.exit_code == 1
    assert 'no "fp32" for TensorRT; it has: tensorrt-fp16, tensorrt-int8' in result.stderr


def test_threads_that_do_not_spin(bundle: Path) -> None:
    name = "session.intra_op.allow_spinning"
    assert session_options(2, spin=False).get_session_config_entry(name) == "0"
    texts = ["a gorgeous movie", "dull"]
    expected = Classifier.load(bundle).logits(texts)
    assert np.array_equal(Classifier.load(bundle, spin=False).logits(texts), expected)
