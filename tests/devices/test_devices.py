"""Variants on a GPU answer as the reference does. The same tests run wherever a GPU is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from models import needs_data, read_jsonl
from trimexport import ParityReport, Texts, verify
from trimexport_runtime import Classifier, read_manifest
from trimexport_runtime.backends import PROVIDERS
from trimexport_runtime.engine import build_engine, candidates


def compared(bundle: Path, backend: str) -> ParityReport:
    rows = read_jsonl(needs_data("sst2", "test.jsonl"))
    report = verify(bundle, sample=Texts(tuple(row["text"] for row in rows)), backends=(backend,))
    assert not report.not_run
    assert report.variants
    return report


@pytest.mark.gpu
def test_cuda_answers_as_the_reference(cuda: Path) -> None:
    for row in compared(cuda, "onnxruntime-cuda").variants:
        assert row.agreement >= 0.998, row.name


@pytest.mark.gpu
def test_cuda_answers_alone_as_among_others(cuda: Path) -> None:
    classifier = Classifier.load(cuda, backend="onnxruntime-cuda")
    assert classifier.provider == PROVIDERS["onnxruntime-cuda"]
    texts = ["a gorgeous movie", "dull", "", "it never quite comes together " * 9]
    together = classifier.logits(texts)
    alone = np.concatenate([classifier.logits([text]) for text in texts])
    assert np.abs(together - alone).max() < 0.05


@pytest.mark.tensorrt
def test_engines_answer_as_the_reference(tensorrt: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tensorrt, tmp_path / "bundle")
    for variant in candidates(read_manifest(bundle)):
        built = build_engine(bundle, variant)
        assert read_manifest(bundle) == built
    report = compared(bundle, "tensorrt")
    assert [row.name for row in report.variants] == ["tensorrt-fp16", "tensorrt-int8"]
    for row in report.variants:
        assert row.agreement >= (0.998 if row.name == "tensorrt-fp16" else 0.99), row.name
    long = Classifier.load(bundle, backend="tensorrt").classify(["word " * 600, "", "good"])
    assert [answer.truncated for answer in long] == [True, False, False]
