"""Gemma 3 270M through its recipe: what is exact is exact, what is rounded is near."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from click.testing import CliRunner

from models import without_one
from real.conftest import RECIPE, REVIEWS, SAMPLE, Judge
from trimexport import BuildSpec, Texts, build
from trimexport.cli import main
from trimexport_runtime import Classifier, read_manifest


def _logits(bundle: Path, variant: str, texts: Texts) -> npt.NDArray[np.float32]:
    return Classifier.load(bundle, variant=variant).logits(list(texts.texts))


def _accuracy(logits: npt.NDArray[np.float32], texts: Texts, bundle: Path) -> float:
    return float((logits.argmax(1) == texts.places(read_manifest(bundle).label_names)).mean())


def test_fp32_is_the_model(bundle: Path, recipe: BuildSpec, judge: Judge) -> None:
    """The joined string in transformers, and the text alone in the bundle."""
    manifest = read_manifest(bundle)
    tokens = [label.token_ids[0] for label in manifest.labels]
    strings = [(recipe.prompt or "").replace("{text}", text) for text in REVIEWS.texts]
    rows = [judge.tokenizer(it)["input_ids"] for it in strings]
    expected, found = judge.logits(rows, tokens), _logits(bundle, "fp32", REVIEWS)
    assert np.abs(found - expected).max() < 1e-3
    last = len(manifest.prompt.prefix_ids) - 1
    mutant = judge.logits([without_one(row, last) for row in rows], tokens)
    assert np.abs(found - mutant).max() > 0.05
    assert "ai.google.dev/gemma/terms" in (manifest.source.notice or "")


def test_int8_is_near(bundle: Path, sentences: Texts) -> None:
    exact, found = _logits(bundle, "fp32", sentences), _logits(bundle, "int8", sentences)
    assert (found.argmax(1) == exact.argmax(1)).mean() >= 0.95
    margin, other = exact[:, 0] - exact[:, 1], found[:, 0] - found[:, 1]
    assert np.std(other - margin) / np.std(margin) < 0.1
    assert _accuracy(exact, sentences, bundle) >= 0.85
    assert _accuracy(found, sentences, bundle) >= 0.85


def test_int8_is_the_same_alone_and_in_a_batch(bundle: Path) -> None:
    classifier = Classifier.load(bundle, variant="int8")
    texts = list(REVIEWS.texts)
    alone = np.concatenate([classifier.logits([text]) for text in texts])
    assert np.array_equal(classifier.logits(texts), alone)


def test_int4_is_kept_or_refused(recipe: BuildSpec, tmp_path: Path) -> None:
    """On so few texts it may fall on either side of its tolerance."""
    texts, target = tmp_path / "texts.txt", tmp_path / "int4"
    texts.write_text("\n".join(SAMPLE.texts), encoding="utf-8")
    command = ["build", "--recipe", str(RECIPE), "--precision", "int4"]
    answer = CliRunner().invoke(main, [*command, "--texts", str(texts), "-o", str(target)])
    refused = "variant int4 is outside its tolerance" in answer.output
    assert answer.exit_code == int(refused), answer.output
    assert refused or Classifier.load(target).classify(["A bad film."])[0].label == "negative"


def test_safetensors_give_the_same_bundle(
    bundle: Path, recipe: BuildSpec, judge: Judge, tmp_path: Path
) -> None:
    """The checkpoint that transformers makes of the GGUF."""
    model = judge.save(tmp_path / "model")
    spec = replace(recipe, model=str(model), tokenizer=None, precision=("fp32",))
    build(spec, tmp_path / "bundle", sample=Texts(SAMPLE.texts[:1]))
    ours, other = (_logits(it, "fp32", REVIEWS) for it in (bundle, tmp_path / "bundle"))
    assert np.abs(ours - other).max() < 1e-3
