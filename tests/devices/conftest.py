"""Tests that need an NVIDIA GPU. Where there is none, or not the package, they are skipped, and the
report's last lines say how many were not run. Where both are there, whatever fails is a failure."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tasks import SENTIMENT
from trimexport import build
from trimexport_runtime import BackendError
from trimexport_runtime.backends.availability import require_backend


def _need(backend: str) -> None:
    try:
        require_backend(backend)
    except BackendError as error:
        pytest.skip(f"not run: {error}")
    try:
        subprocess.run(["nvidia-smi"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not run: nvidia-smi finds no GPU")


@pytest.fixture(scope="session")
def gpu_sentiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gemma-mini's first task with every variant for GPUs, without engines."""
    spec = replace(SENTIMENT, precision=("fp32", "fp16"), tensorrt=("fp16", "int8"))
    return build(spec, tmp_path_factory.mktemp("gpu") / "bundle", engines=False).directory


@pytest.fixture
def cuda(request: pytest.FixtureRequest) -> Path:
    """The bundle, where a GPU and onnxruntime-gpu are."""
    _need("onnxruntime-cuda")
    bundle: Path = request.getfixturevalue("gpu_sentiment")
    return bundle


@pytest.fixture
def tensorrt(request: pytest.FixtureRequest) -> Path:
    """The bundle, where a GPU, TensorRT and cuda-python are."""
    _need("tensorrt")
    bundle: Path = request.getfixturevalue("gpu_sentiment")
    return bundle
