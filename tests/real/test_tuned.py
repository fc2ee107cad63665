"""Real bundles with another head, or a bias."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from models import needs_data, read_jsonl
from trimexport import Texts, calibrate, fit
from trimexport_runtime import Classifier


def test_a_head_fitted_to_examples(bundle: Path, sentences: Texts, tmp_path: Path) -> None:
    rows = read_jsonl(needs_data("sst2", "train.jsonl"))
    chosen = [
        row
        for label in ("positive", "negative")
        for row in [it for it in rows if it["label"] == label][:32]
    ]
    shots = Texts(tuple(it["text"] for it in chosen), tuple(it["label"] for it in chosen))
    fit(bundle, tmp_path / "fitted", shots, test=sentences)
    for variant in ("int8", "fp32"):
        classifier = Classifier.load(tmp_path / "fitted", variant=variant)
        logits = classifier.logits(list(sentences.texts))
        assert (logits.argmax(1) == sentences.places(classifier.labels)).mean() >= 0.8
        before = Classifier.load(bundle, variant=variant).logits(list(sentences.texts[:4]))
        assert np.abs(logits[:4] - before).max() > 0.1, "the old head"


def test_a_bias_from_texts(bundle: Path, sentences: Texts, tmp_path: Path) -> None:
    """A skewed sample is answered half and half, and the bias moves every text alike."""
    copy = shutil.copytree(bundle, tmp_path / "bundle", copy_function=os.link)
    gold = sentences.gold or ()
    skewed = [
        text for text, label in zip(sentences.texts, gold, strict=True) if label == "positive"
    ]
    bias = calibrate(copy, skewed).calibration.bias
    assert bias[0] < bias[1]
    for variant in ("int8", "fp32"):
        before = Classifier.load(bundle, variant=variant).logits(skewed[:5])
        after = Classifier.load(copy, variant=variant).logits(skewed[:5])
        assert np.abs(after - before - np.array(bias)).max() < 1e-4
