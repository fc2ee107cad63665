"""gemma-mini on the whole test splits: the accuracy that its card states, and parity."""

from __future__ import annotations

from pathlib import Path

from models import needs_data, read_jsonl
from trimexport import ParityReport, Texts, verify


def _report(bundle: Path, rows: list[dict[str, str]]) -> ParityReport:
    texts = tuple(row["text"] for row in rows)
    return verify(bundle, sample=Texts(texts, tuple(row["label"] for row in rows)))


def _check(report: ParityReport, accuracy: float) -> None:
    (variant,) = report.variants
    assert variant.agreement == 1.0
    assert variant.disagreements == ()
    assert variant.max_logit_difference < 1e-3
    assert report.logit_deviation >= 1
    assert variant.accuracy is not None
    assert variant.accuracy >= accuracy
    assert variant.accuracy == report.reference_accuracy
    assert report.gap.different == 0
    assert report.mass.mean > 0.9


def test_sst2(sentiment: Path) -> None:
    rows = read_jsonl(needs_data("sst2", "test.jsonl"))
    assert len(rows) == 1821
    _check(_report(sentiment, rows), accuracy=0.78)


def test_agnews(topics: Path) -> None:
    rows = read_jsonl(needs_data("agnews", "test.jsonl"))
    assert len(rows) == 7600
    _check(_report(topics, rows), accuracy=0.88)
