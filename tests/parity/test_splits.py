"""gemma-mini on the test splits, of AG News on every fourth story: the accuracy that its card
states, and what each precision keeps of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models import needs_data, read_jsonl
from tasks import SENTIMENT, TOPICS
from trimexport import BuildSpec, ParityReport, Texts, build, verify

# Label agreement with the reference, and how far the accuracy may be from it.
KEPT = {
    "fp32": (1.0, 0.0),
    "int8": (0.995, 0.003),
    "int4": (0.98, 0.01),
    "tensorrt-fp16": (1.0, 0.0),
    "tensorrt-int8": (0.99, 0.005),
}


@pytest.mark.parametrize(
    ("spec", "task", "every", "texts", "accuracy"),
    [(SENTIMENT, "sst2", 1, 1821, 0.78), (TOPICS, "agnews", 4, 1900, 0.87)],
    ids=["sst2", "agnews"],
)
def test_a_split(
    spec: BuildSpec, task: str, every: int, texts: int, accuracy: float, tmp_path: Path
) -> None:
    rows = read_jsonl(needs_data(task, "test.jsonl"))[::every]
    assert len(rows) == texts
    # What is for GPUs takes long on a CPU; the larger split shows no more of it.
    tensorrt = ("fp16", "int8") if task == "sst2" else ()
    spec = replace(spec, precision=("fp32", "int8", "int4"), tensorrt=tensorrt)
    bundle = build(spec, tmp_path / "bundle", engines=False).directory
    report = _report(bundle, rows)
    assert report.logit_deviation >= 1
    assert report.gap.different == 0
    assert report.mass is not None
    assert report.mass.mean > 0.9
    assert report.reference_accuracy is not None
    assert report.reference_accuracy >= accuracy
    assert [variant.name for variant in report.variants] == list(spec.variants)
    for variant in report.variants:
        agreement, distance = KEPT[variant.name]
        assert variant.accuracy is not None
        assert variant.agreement >= agreement
        assert abs(variant.accuracy - report.reference_accuracy) <= distance
    assert report.variants[0].max_logit_difference < 1e-3


def _report(bundle: Path, rows: list[dict[str, str]]) -> ParityReport:
    texts = tuple(row["text"] for row in rows)
    return verify(bundle, sample=Texts(texts, tuple(row["label"] for row in rows)))
