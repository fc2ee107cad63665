"""Channels two hundred times larger than the others, as large decoders have them: int8 keeps the
answers, and one scale for a whole tensor loses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models import GEMMA_MINI, needs_data, read_jsonl
from outliers import agreement, logits, plant


def test_outliers(tmp_path: Path) -> None:
    texts = [row["text"] for row in read_jsonl(needs_data("sst2", "test.jsonl"))[:600]]
    plain = logits(GEMMA_MINI, texts, ["fp32"])["fp32"]
    planted = plant(GEMMA_MINI, tmp_path / "model", 200)
    ways = ["int8", "int8, smoothed", "int8, rotated"]
    ways += ["tensorrt-int8", "tensorrt-int8, smoothed and rotated"]
    found = logits(planted, texts, ["fp32", "quantize_dynamic", *ways])
    assert np.abs(found["fp32"] - plain).max() < 1e-3, "planting changed no answer"
    kept = agreement(found)
    assert kept["quantize_dynamic"] < 0.95, "the comparison shows nothing"
    assert kept["int8"] < 0.98, "a scale per token shows nothing"
    assert kept["int8, rotated"] >= 0.99
    assert kept["int8, smoothed"] >= 0.99, "calibration finds what is large"
    assert 1 - kept["quantize_dynamic"] > 5 * (1 - kept["int8, rotated"])
    assert kept["tensorrt-int8"] < 0.9, "one scale for all shows nothing"
    assert kept["tensorrt-int8, smoothed and rotated"] >= 0.98
