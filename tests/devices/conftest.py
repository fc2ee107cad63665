"""Tests that need an NVIDIA GPU. Where there is none they are skipped, each with its reason, and
the report's last lines say how many were not run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tasks import SENTIMENT
from trimexport import build
from trimexport_runtime import BackendError, Classifier
from trimexport_runtime.backends.availability import require


@pytest.fixture(scope="session")
def gpu_sentiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gemma-mini's first task with every variant for GPUs, without engines."""
    spec = replace(SENTIMENT, precision=("fp32", "fp16"), tensorrt=("fp16", "int8"))
    return build(spec, tmp_path_factory.mktemp("gpu") / "bundle", engines=False).directory


@pytest.fixture
def cuda(gpu_sentiment: Path) -> Path:
    """The bundle, where ONNX Runtime's CUDA provider starts."""
    try:
        Classifier.load(gpu_sentiment, backend="onnxruntime-cuda")
    except BackendError as error:
        pytest.skip(f"not run: {error}")
    return gpu_sentiment


@pytest.fixture
def tensorrt(gpu_sentiment: Path) -> Path:
    """The bundle, where TensorRT and a GPU are."""
    try:
        require("tensorrt")
    except BackendError as error:
        pytest.skip(f"not run: {error}")
    return gpu_sentiment
