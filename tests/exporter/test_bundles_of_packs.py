"""Bundles that were made of a backbone and a pack are calibrated, fitted and verified as others."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

import tiny
from packs import CAPPED, capped_backbone, tiny_backbone, tiny_pack
from trimexport import Texts, calibrate, fit, verify
from trimexport.bundle.written_graph import load_graph
from trimexport.bundle.written_head import read_head
from trimexport.cli import main
from trimexport.evaluation.known_texts import LEARNED, learned_from, read_learned
from trimexport.packs.pack import pack
from trimexport.packs.whole_bundle import bundle_of
from trimexport.tuning.bias import calibrate_questions, undo_calibration
from trimexport_runtime import Classifier
from trimexport_runtime.cli import main as run_main
from trimexport_runtime.inputs import Input
from trimexport_runtime.pack import read_pack
from tuning import FRAMES, made, rows_of, write_rows

CLOSE = 1e-4
SAMPLE = Texts(tiny.TEXTS)
MOOD, KIND = slice(0, 2), slice(2, 5)
Logits = npt.NDArray[np.float32]


def logits(directory: Path, task: Path | None = None) -> Logits:
    return Classifier.load(directory, task=task, variant="fp32").logits(tiny.TEXTS)


def two_labels(frames: tuple[str, ...] = FRAMES[:2]) -> Texts:
    """Examples of the labels that the tiny tasks have."""
    rows = [(text, label) for text, label in rows_of(made(frames)) if label != "neutral"]
    texts, gold = zip(*rows, strict=True)
    return Texts(texts, gold)


@pytest.fixture
def sentiment(tmp_path: Path) -> Path:
    return bundle_of(tiny_backbone(), tiny_pack("sentiment"), tmp_path / "sentiment").directory


def changed(task: str, path: Path, change: Callable[[Path], object]) -> Path:
    shutil.copyfile(tiny_pack(task), path)
    change(path)
    return path


def test_a_bundle_is_fitted_as_its_pack(sentiment: Path, tmp_path: Path) -> None:
    """From the same hidden states and the same start, which is without the rows that fill a
    block; and the bundle's new head is read again, by `verify` too."""
    graph = load_graph(sentiment / "onnx" / "model.onnx")
    assert read_head(graph).weight.shape == (2, 32)
    ours = fit(sentiment, tmp_path / "fitted", two_labels())
    theirs = fit(
        tiny_backbone(), tmp_path / "fitted.pack", two_labels(), pack=tiny_pack("sentiment")
    )
    assert ours.manifest.fit == theirs.manifest.fit
    found = logits(tmp_path / "fitted")
    assert np.abs(found - logits(tiny_backbone(), tmp_path / "fitted.pack")).max() < CLOSE
    assert np.abs(found - logits(sentiment)).max() > 0.1
    assert difference(tmp_path / "fitted") < CLOSE
    again = fit(tmp_path / "fitted", tmp_path / "again", two_labels(FRAMES[2:]))
    assert again.manifest.fit != ours.manifest.fit


def difference(bundle: Path) -> float:
    """How far the variant in float32 is from the untrimmed model with what was tuned, at most."""
    report = verify(bundle, sample=SAMPLE)
    assert report.logit_deviation > 0.1
    (found,) = (it.max_logit_difference for it in report.variants if it.name == "fp32")
    assert found is not None
    return found


def known(bundle: Path, data: Texts) -> Collection[Input]:
    return learned_from(read_learned(bundle / LEARNED), data.texts)


def test_a_pack_knows_what_it_was_fitted_on(tmp_path: Path) -> None:
    """Before and now, and so does the bundle that is made of it; `fit` says so."""
    first, second = tmp_path / "first.pack", tmp_path / "second.pack"
    for task, output, frames in (
        (tiny_pack("sentiment"), first, FRAMES[:1]),
        (first, second, FRAMES[1:2]),
    ):
        fitted = fit(tiny_backbone(), output, two_labels(frames), pack=task)
        assert not fitted.notes
    data = two_labels()
    fitted = fit(tiny_backbone(), tmp_path / "third.pack", data, pack=second)
    (note,) = fitted.notes
    assert note.startswith(f"{len(data.texts)} texts that are scored are what the bundle's head")
    whole = bundle_of(tiny_backbone(), second, tmp_path / "bundle").directory
    assert known(whole, data) == set(data.texts)
    assert not known(whole, two_labels(FRAMES[2:]))


def test_a_question_of_a_bundle_is_fitted(tmp_path: Path) -> None:
    """The other stays to the last bit, whether the pack had a fitted head before or none."""
    bundle_of(tiny_backbone(), tiny_pack("asked"), tmp_path / "plain")
    fit(tmp_path / "plain", tmp_path / "one", two_labels(), question="mood")
    task = tmp_path / "task.pack"
    fit(tiny_backbone(), task, two_labels(), question="mood", pack=tiny_pack("asked"))
    whole = bundle_of(tiny_backbone(), task, tmp_path / "of-fitted")
    assert whole.apart["fp32"] < CLOSE
    assert known(whole.directory, two_labels()) == set(two_labels().texts)
    before, one, other = (logits(tmp_path / name) for name in ("plain", "one", "of-fitted"))
    assert np.array_equal(one[:, KIND], before[:, KIND])
    assert np.array_equal(other[:, KIND], before[:, KIND])
    assert np.abs(one - other).max() < CLOSE
    assert np.abs(one - before)[:, MOOD].max() > 0.1
    assert difference(tmp_path / "of-fitted") < CLOSE
    names = dict(zip(("positive", "negative"), ("very positive", "quite so"), strict=True))
    kinds = Texts(two_labels().texts, tuple(names[it] for it in two_labels().gold or ()))
    kinds = Texts((*kinds.texts, *made().texts[:9]), (*(kinds.gold or ()), *["very negative"] * 9))
    fit(tmp_path / "of-fitted", tmp_path / "both", kinds, question="kind")
    assert np.array_equal(logits(tmp_path / "both")[:, MOOD], other[:, MOOD])
    assert difference(tmp_path / "both") < CLOSE


@pytest.mark.parametrize("task", ["sentiment", "asked"])
def test_a_pack_s_calibration_is_undone_in_the_bundle(task: str, tmp_path: Path) -> None:
    """It is where `calibrate` puts it, so that a second one does not come on top."""
    plain = bundle_of(tiny_backbone(), tiny_pack(task), tmp_path / "plain").directory
    path = changed(
        task,
        tmp_path / "task.pack",
        lambda path: calibrate_questions(tiny_backbone(), tiny.TEXTS, pack=path),
    )
    made = bundle_of(tiny_backbone(), path, tmp_path / "bundle")
    assert made.apart == {"int8": 0.0, "fp32": 0.0}
    assert np.abs(logits(made.directory) - logits(plain)).max() > 0.01
    assert difference(made.directory) < CLOSE
    calibrate_questions(made.directory, tiny.TEXTS)
    assert np.abs(logits(made.directory) - logits(tiny_backbone(), path)).max() < CLOSE
    undo_calibration(made.directory)
    assert np.array_equal(logits(made.directory), logits(plain))


def test_a_fitted_and_calibrated_pack_of_a_model_that_caps_logits(tmp_path: Path) -> None:
    task, fitted = tmp_path / "task.pack", tmp_path / "fitted.pack"
    pack(capped_backbone(), CAPPED, task, sample=SAMPLE)
    fit(capped_backbone(), fitted, made(FRAMES[:2]), pack=task)
    calibrate(capped_backbone(), tiny.TEXTS, pack=fitted)
    whole = bundle_of(capped_backbone(), fitted, tmp_path / "bundle")
    assert whole.apart["fp32"] < CLOSE
    assert whole.manifest.calibration == read_pack(fitted).manifest.calibration is not None
    assert difference(whole.directory) < CLOSE
    undo_calibration(whole.directory)
    assert np.abs(logits(whole.directory) - logits(capped_backbone(), fitted)).max() > 0.01


def test_every_command_takes_such_a_bundle(sentiment: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", rows_of(two_labels()))
    commands = (
        (run_main, "info", sentiment, "--check"),
        (run_main, "classify", sentiment, "a gorgeous movie"),
        (main, "verify", sentiment, "--texts", data),
        (main, "eval", sentiment, data),
        (main, "calibrate", sentiment, "--texts", data),
        (main, "fit", sentiment, "--examples", data, "-o", tmp_path / "fitted"),
        (main, "eval", tmp_path / "fitted", data),
    )
    for command, *arguments in commands:
        result = CliRunner().invoke(command, list(map(str, arguments)))
        assert result.exit_code == 0, (arguments, result.output, result.exception)
    assert f"the head was fitted on {len(set(two_labels().texts))} texts of {data}" in result.stderr
