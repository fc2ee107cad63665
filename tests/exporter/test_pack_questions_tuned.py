"""`fit` of a pack that asks several questions: what it changes of which."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tiny
from packs import CAPPED, capped_backbone, tiny_backbone, tiny_pack
from trimexport import QuestionSpec, Texts, build, calibrate, fit
from trimexport.bundle.pack_file import read_arrays
from trimexport.cli import main
from trimexport.packs.pack import pack
from trimexport.packs.whole_bundle import bundle_of
from trimexport.progress import Silent
from trimexport.tuning.fit import fit_questions
from trimexport.tuning.hidden_states import read_states
from trimexport.tuning.regression import logits_of
from trimexport_runtime import Classifier
from trimexport_runtime.pack import check_pack, read_pack
from tuning import FRAMES, made

MOODS = {"positive": "good", "negative": "bad", "neutral": "fair"}
KIND, MOOD = slice(0, 3), slice(3, 6)
ASKED = replace(
    CAPPED,
    labels=(),
    prompt="Review: {text}\n{question}\nAnswer:",
    questions=(
        QuestionSpec("kind", "What is it?", ("very positive", "very negative", "quite so")),
        QuestionSpec("mood", "How is it?", ("good", "bad", "fair")),
    ),
)
"""A question whose labels are read whole, and one of first words, of a model that caps logits."""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("tasks") / "asked.pack"
    return pack(capped_backbone(), ASKED, output, sample=Texts(tiny.TEXTS)).path


def examples(path: Path) -> Path:
    data = made(FRAMES[:1])
    kinds = {"positive": "very positive", "negative": "very negative", "neutral": "quite so"}
    path.write_text(
        "\n".join(
            json.dumps({"text": text, "mood": MOODS[label], "kind": kinds[label]})
            for text, label in zip(data.texts, data.gold or (), strict=True)
        ),
        encoding="utf-8",
    )
    return path


def logits(task: Path, backbone: Path, texts: Sequence[str] = tiny.TEXTS) -> np.ndarray:
    return Classifier.load(backbone, task=task).logits(texts).astype(np.float64)


def test_one_question_is_fitted_and_the_others_stay(task: Path, tmp_path: Path) -> None:
    """To the last bit, whether the others read words whole or not. A fitted head has no soft-cap,
    and what was fitted before is where the next fit starts, in no more rows."""
    before, given = logits(task, capped_backbone()), examples(tmp_path / "examples.jsonl")
    for name, own, other in (("mood", MOOD, KIND), ("kind", KIND, MOOD)):
        output, again = tmp_path / f"{name}.pack", tmp_path / f"{name}-again.pack"
        fitted = fit(capped_backbone(), output, given, question=name, pack=task)
        check_pack(output)
        found = logits(output, capped_backbone())
        assert np.array_equal(found[:, other], before[:, other])
        manifest = read_pack(output).manifest
        assert {it.name: it.fit is not None for it in manifest.questions}[name]
        assert sum(it.fit is not None for it in manifest.questions) == 1
        variant = fitted.manifest.variants[0]
        args = (capped_backbone(), manifest, variant, tiny.TEXTS, Silent(), name, output)
        states = read_states(*args)
        expected = logits_of(states.head, states.hidden.astype(np.float64))
        assert states.head.weight.shape == (3, 32)
        assert found[:, own] == pytest.approx(expected, abs=1e-4)
        fit(capped_backbone(), again, made_as(name), question=name, pack=output)
        first, second = read_arrays(output), read_arrays(again)
        assert {key: it.shape for key, it in first.items()} == {
            key: it.shape for key, it in second.items()
        }
        found = logits(again, capped_backbone())
        assert np.array_equal(found[:, other], before[:, other])
        assert not np.allclose(found[:, own], logits(output, capped_backbone())[:, own], atol=1e-3)


def made_as(name: str) -> Texts:
    """Other examples of a question, whose labels are turned round."""
    data = made(FRAMES[2:3])
    labels = {it.name: it.labels or () for it in ASKED.questions}[name]
    names = dict(zip(("negative", "neutral", "positive"), labels, strict=True))
    return Texts(data.texts, tuple(names[label] for label in data.gold or ()))


def test_all_questions_are_fitted_as_a_bundle_s(task: Path, tmp_path: Path) -> None:
    """The same examples give the pack and the bundle the same answers."""
    given = examples(tmp_path / "examples.jsonl")
    bundle = tmp_path / "bundle"
    build(replace(ASKED, precision=("fp32",)), bundle, sample=Texts(tiny.TEXTS))
    each = fit_questions(bundle, tmp_path / "fitted", given)
    ours = fit_questions(capped_backbone(), tmp_path / "fitted.pack", given, pack=task)
    assert [it.question for it in ours] == [it.question for it in each] == ["kind", "mood"]
    for one, other in zip(ours, each, strict=True):
        assert one.compared.fitted.accuracy == pytest.approx(other.compared.fitted.accuracy)
    whole = Classifier.load(tmp_path / "fitted").logits(tiny.TEXTS)
    found = logits(tmp_path / "fitted.pack", capped_backbone())
    scale = np.abs(whole).max()
    assert np.abs(found - whole).max() < 2e-3 * scale
    made_whole = bundle_of(capped_backbone(), tmp_path / "fitted.pack", tmp_path / "whole")
    assert made_whole.apart["fp32"] < 1e-4
    assert all(it.fit is not None for it in made_whole.manifest.questions)


def test_int8_and_a_calibration_of_the_other(tmp_path: Path) -> None:
    """A variant's own correction goes along, a calibration of the other question stays, and the
    question's own goes; on the command line too."""
    task, output = tmp_path / "task.pack", tmp_path / "fitted.pack"
    task.write_bytes(tiny_pack("asked").read_bytes())
    for name in ("mood", "kind"):
        calibrate(tiny_backbone(), tiny.TEXTS, question=name, pack=task)
    before = {it: answers(task, it) for it in ("int8", "fp32")}
    given = tmp_path / "examples.jsonl"
    lines = [
        json.dumps({"text": text, "mood": label})
        for text, label in zip(made().texts, made().gold or (), strict=True)
        if label != "neutral"
    ]
    given.write_text("\n".join(lines[:60]), encoding="utf-8")
    command = ["fit", str(tiny_backbone()), "--task", str(task), "--examples", str(given)]
    result = CliRunner().invoke(main, [*command, "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("mood:\n60 texts (held out in turn)")
    for variant, old in before.items():
        found = answers(output, variant)
        assert np.array_equal(found[:, 2:], old[:, 2:])
        assert not np.allclose(found[:, :2], old[:, :2], atol=1e-2)
        classifier = Classifier.load(tiny_backbone(), task=output, variant=variant)
        alone = np.concatenate([classifier.logits([text]) for text in tiny.TEXTS])
        assert np.array_equal(alone, found)
    mood, kind = read_pack(output).manifest.questions
    assert (mood.calibration, kind.fit) == (None, None)
    assert kind.calibration is not None
    other = ["--question", "tone", "-o", str(tmp_path / "other.pack")]
    result = CliRunner().invoke(main, [*command, *other])
    assert result.exit_code == 1
    assert "the bundle has no question 'tone'; it has: mood, kind" in result.stderr
    assert not (tmp_path / "other.pack").exists()


def answers(task: Path, variant: str) -> np.ndarray:
    return Classifier.load(tiny_backbone(), task=task, variant=variant).logits(tiny.TEXTS)
