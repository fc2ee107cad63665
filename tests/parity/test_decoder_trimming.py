"""The script of decoder trimming's two experiments: what it draws, and that it goes on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import decoder_trimming
from decoder_trimming import draws_of, main
from models import GEMMA_MINI
from trimexport import Texts

LABELS = ("positive", "negative")
SHOWN = "film 3 was good"
WORDS = (("good", "positive"), ("bad", "negative"))
PROMPT = f"Review: {SHOWN}\nSentiment: positive\nReview: {{text}}\nSentiment:"


def texts(first: int, last: int) -> Texts:
    """Texts of both labels, in turn."""
    words = [(f"film {n} was {word}", label) for n in range(first, last) for word, label in WORDS]
    return Texts(tuple(text for text, _ in words), tuple(label for _, label in words))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_trimming, "SHOTS", (2, 3))
    monkeypatch.setattr(decoder_trimming, "DRAWS", 4)
    monkeypatch.setattr(decoder_trimming, "CHUNK", 4)


def test_no_draw_has_a_text_that_is_known() -> None:
    train, test = texts(0, 8), texts(4, 8)
    examples, draws = draws_of(train, test, PROMPT, LABELS)
    assert set(examples.texts) <= set(texts(0, 4).texts) - {SHOWN}
    assert {shots: len(some) for shots, some in draws.items()} == {2: 4, 3: 4}
    for shots, some in draws.items():
        for draw in some:
            gold = [(examples.gold or ())[place] for place in draw.places]
            assert gold == [LABELS[place] for place in draw.gold]
            assert [gold.count(label) for label in LABELS] == [shots, shots]


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    for name, part in (("train", texts(0, 8)), ("test", texts(8, 12))):
        file = tmp_path / "sst2" / f"{name}.jsonl"
        file.parent.mkdir(exist_ok=True)
        pairs = zip(part.texts, part.gold or (), strict=True)
        lines = [json.dumps({"text": text, "label": label}) for text, label in pairs]
        file.write_text("\n".join(lines), encoding="utf-8")
    cache = tmp_path / "cache"
    options = ["--data", str(tmp_path), "--prompt", "Review: {text}\\nSentiment:"]
    options += ["--cache", str(cache), "--precision", "fp32"]

    def run() -> str:
        result = CliRunner().invoke(main, ["sst2", str(GEMMA_MINI), *options])
        assert result.exit_code == 0, result.output
        return re.sub(r"fp32 [\d.]+ ms", "fp32", result.stdout)

    whole = run()
    times = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    lost = min(times)
    lost.unlink()
    assert run() == whole
    again = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert again.keys() == times.keys()
    assert len([file for file in times if again[file] != times[file]]) <= 2, "it began anew"
    rows = [line.split(" | ") for line in whole.splitlines() if "| fp32 |" in line]
    assert [row[0] for row in rows] == [
        "| prompt alone",
        "| calibrated on 2 a label, labels not used",
        "| calibrated on 3 a label, labels not used",
        "| head fitted on 2 a label",
        "| head fitted on 3 a label",
    ]
