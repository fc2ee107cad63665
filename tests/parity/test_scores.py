"""Log-odds and a single label's logit: their formulas on the untrimmed model, and what is shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoConfig

import tiny
from models import Untrimmed, segments_without_gap
from trimexport import BuildSpec, ParityError, SpecError, Texts, build, calibrate, fit, verify
from trimexport.bench.pytorch import Untrimmed as Measured
from trimexport.cli import main
from trimexport.evaluation.evaluate import evaluate
from trimexport.parity.json_report import as_dict
from trimexport.parity.render import table
from trimexport.parity.verdict import require
from trimexport_runtime import Classifier, read_manifest
from trimexport_runtime.cli import main as runtime
from trimexport_runtime.explain import explain
from trimexport_runtime.score import Score

SCALE, SHIFT = 0.5, -1.5
TEXT = "a gorgeous, witty movie"
WORDS = {"positive": ("good", "great")}


def made(directory: Path, **spec: Any) -> Path:
    given = {"score_scale": SCALE, "score_shift": SHIFT, "precision": ("fp32",), **spec}
    whole = BuildSpec(model=str(tiny.tiny_model()), prompt=tiny.PROMPT, **given)
    return build(whole, directory, sample=Texts(tiny.TEXTS)).directory


@pytest.fixture(scope="module")
def odds() -> Path:
    """Log-odds of two labels, one of which has two words. Shared: do not change it."""
    return tiny.odds_bundle()


@pytest.fixture(scope="module")
def logit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The logit of one label with two words."""
    directory = tmp_path_factory.mktemp("logit") / "bundle"
    return made(directory, labels=("positive",), verbalizers=WORDS, score="logit")


@pytest.fixture(scope="module")
def judge() -> Untrimmed:
    return Untrimmed(tiny.tiny_model())


def label_logits(
    judge: Untrimmed, bundle: Path, rows: list[list[int]]
) -> list[npt.NDArray[np.float64]]:
    """Each label's logit by plain PyTorch, [texts]: the sum of its words' probabilities."""
    logits = torch.stack([judge.logits(row) for row in rows]).double()
    labels = read_manifest(bundle).labels
    return [logits[:, list(label.token_ids)].logsumexp(1).numpy() for label in labels]


def test_log_odds_are_their_formula(odds: Path, judge: Untrimmed) -> None:
    texts, rows = segments_without_gap(tiny.PROMPT, judge, read_manifest(odds), odds)
    first, second = label_logits(judge, odds, rows)
    expected = SCALE * (first - second) + SHIFT
    found = Classifier.load(odds).logits(texts)
    assert found.shape == (len(texts), 1)
    assert np.abs(found[:, 0] - expected).max() < 1e-4
    assert expected.std() > 0.5, "a model that says nothing proves nothing"
    for prediction, z in zip(Classifier.load(odds).classify(texts), expected, strict=True):
        p = 1 / (1 + np.exp(-z))
        assert prediction.probabilities == pytest.approx((p, 1 - p), abs=1e-5)
        assert prediction.score == pytest.approx(z, abs=1e-4)
        assert prediction.label == ("positive" if p >= 0.5 else "negative")
        assert prediction.labels == (prediction.label,)


def test_a_single_logit_is_its_formula(logit: Path, judge: Untrimmed) -> None:
    texts, rows = segments_without_gap(tiny.PROMPT, judge, read_manifest(logit), logit)
    (own,) = label_logits(judge, logit, rows)
    expected = SCALE * own + SHIFT
    found = Classifier.load(logit).logits(texts)
    assert np.abs(found[:, 0] - expected).max() < 1e-4
    for prediction, z in zip(Classifier.load(logit).classify(texts), expected, strict=True):
        assert prediction.probabilities == pytest.approx((1 / (1 + np.exp(-z)),), abs=1e-5)
        assert (prediction.label, prediction.labels) == ("positive", ("positive",))


def test_labels_that_are_read_whole(tmp_path: Path, judge: Untrimmed) -> None:
    """Their log-odds are a difference of log-probabilities: here of the two words behind `very`."""
    labels = ("very good", "very bad")
    bundle = made(tmp_path / "whole", labels=labels, score="log-odds")
    manifest = read_manifest(bundle)
    (good,), (bad,) = (label.sequences for label in manifest.labels)
    assert good[:-1] == bad[:-1]
    texts, rows = segments_without_gap(tiny.PROMPT, judge, manifest, bundle)
    ends = judge.logits_of([[*row, *good[:-1]] for row in rows], [good[-1], bad[-1]])
    expected = SCALE * (ends[:, 0] - ends[:, 1]) + SHIFT
    assert np.abs(Classifier.load(bundle).logits(texts)[:, 0] - expected).max() < 1e-4


@pytest.mark.parametrize("dropped", [{"scale": 1.0}, {"shift": 0.0}, {"kind": "swapped"}])
def test_a_graph_with_another_score_fails(odds: Path, tmp_path: Path, dropped: Any) -> None:
    """The reference takes the formula from the manifest, which here is not the graph's."""
    bundle = shutil.copytree(odds, tmp_path / "bundle")

    def change(manifest: Any) -> None:
        if "kind" in dropped:
            manifest["labels"].reverse()
        else:
            manifest["score"] |= dropped

    tiny.edit_json(bundle / "trimexport.json", change)
    report = verify(bundle, sample=Texts(tiny.TEXTS))
    assert min(variant.max_logit_difference for variant in report.variants) > 0.1
    with pytest.raises(ParityError, match="fp32 is outside its tolerance"):
        require(report)


def test_clients_of_one_logit(odds: Path) -> None:
    """transformers, sentence-transformers and text-embeddings-inference apply a sigmoid to it."""
    config = AutoConfig.from_pretrained(odds)
    assert (config.num_labels, config.id2label) == (1, {0: "positive"})
    assert read_manifest(odds).format_version == 2
    assert read_manifest(odds).score == Score("log-odds", SCALE, SHIFT)


def test_a_report_of_log_odds(odds: Path) -> None:
    sample = Texts(tiny.TEXTS, ("positive", "negative", "negative", "positive", "negative"))
    report = verify(odds, sample=sample)
    assert report.within
    assert [variant.name for variant in report.variants] == ["fp32", "tensorrt-fp16"]
    for variant, near in zip(report.variants, (1e-4, 0.05), strict=True):
        assert variant.max_logit_difference < near, variant.name
    assert report.reference_accuracy == report.variants[0].accuracy
    assert report.reference_accuracy is not None
    assert report.mass is not None
    shown = table(report)
    assert "score: log-odds, times 0.5, plus -1.5, true from 0.5 on" in shown
    assert as_dict(report)["score"]["kind"] == "log-odds"
    card = (odds / "README.md").read_text(encoding="utf-8")
    assert "| score | log-odds, times 0.5, plus -1.5" in card
    assert "float32 [batch, 1]" in card
    assert (odds / "reports" / "parity.html").is_file()


def test_a_report_of_a_logit_has_no_accuracy(logit: Path) -> None:
    """Of a single label there is nothing to be right about, whatever the texts are labelled."""
    report = verify(logit, sample=Texts(tiny.TEXTS, ("anything",) * len(tiny.TEXTS)))
    assert report.within
    assert report.reference_accuracy is None
    assert "low: the prompt does not ask" not in table(report)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(runtime, [str(it) for it in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_line_shows_the_score(odds: Path) -> None:
    (prediction,) = Classifier.load(odds).classify([TEXT])
    (shown,) = run("classify", odds, TEXT).splitlines()
    share = f"{prediction.probability:.1%}"
    assert shown.split("\t") == [prediction.label, share, f"{prediction.score:.4f}", TEXT]
    (value,) = map(json.loads, run("classify", odds, TEXT, "--json").splitlines())
    assert value["score"] == prediction.score
    assert list(value["probabilities"]) == ["positive", "negative"]
    assert "labels" not in value
    assert "score       log-odds, times 0.5, plus -1.5" in run("info", odds)


def test_what_a_word_does_to_the_score(odds: Path, logit: Path) -> None:
    for bundle in (odds, logit):
        found = explain(Classifier.load(bundle), TEXT)
        whole, without = Classifier.load(bundle).logits([TEXT, "a gorgeous, witty"])[:, 0]
        sign = 1 if found.prediction.label == "positive" else -1
        assert found.parts[-1].effect == pytest.approx(sign * (whole - without), abs=1e-5)
        assert run("explain", bundle, TEXT).startswith(found.prediction.label)


def test_the_untrimmed_model_of_a_measurement_answers_alike(odds: Path, logit: Path) -> None:
    for bundle in (odds, logit):
        found = Measured(str(bundle), str(tiny.tiny_model()), "float32", None)
        texts = list(tiny.TEXTS)
        expected = [it.label for it in Classifier.load(bundle).classify(texts)]
        assert found.labels(texts) == expected


@pytest.mark.parametrize("change", [calibrate, lambda it: fit(it, it.parent / "out", it / "no")])
def test_what_is_of_a_softmax_alone(odds: Path, change: Callable[[Path], Any]) -> None:
    with pytest.raises(SpecError, match="is log-odds, no softmax over labels, and"):
        change(odds)


def test_labels_judge_log_odds_and_no_logit(odds: Path, logit: Path) -> None:
    sample = Texts(tiny.TEXTS, ("positive", "negative", "negative", "positive", "negative"))
    (judged,) = evaluate(odds, sample).variants
    assert judged.scores.texts == len(tiny.TEXTS)
    with pytest.raises(SpecError, match="gives each text a number and no label of several"):
        evaluate(logit, sample)


def test_a_threshold_of_log_odds_is_found_and_saved(odds: Path, tmp_path: Path) -> None:
    """Of two labels the first is looked for; where half of the texts have it by their own order,
    the best threshold parts them."""
    bundle = shutil.copytree(odds, tmp_path / "bundle")
    texts = [text for text in tiny.TEXTS if text]
    classifier = Classifier.load(bundle)
    first, second = classifier.labels
    shares = [it.probabilities[0] for it in classifier.classify(texts)]
    middle = sorted(shares)[len(shares) // 3]
    rows = [
        {"text": text, "label": first if share >= middle else second}
        for text, share in zip(texts, shares, strict=True)
    ]
    data = tmp_path / "dev.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["eval", str(bundle), str(data), "--threshold", "auto", "--save", "--json"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["variants"]
    assert (found["exact"], found["micro_f1"]) == (1.0, 1.0)
    assert [it["label"] for it in found["labels"]] == [first]
    assert read_manifest(bundle).score.threshold == found["best_threshold"]
    assert [it.label for it in Classifier.load(bundle).classify(texts)] == [
        row["label"] for row in rows
    ]
