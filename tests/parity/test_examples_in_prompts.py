"""Examples in the prompt: the bundle against the untrimmed model on the whole string."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from models import TEXTS, Untrimmed, gemma, save, without_one
from trimexport.cli import main
from trimexport_runtime import Classifier, read_manifest

PROMPT = "Review: {text}\nSentiment:"
EXAMPLES = [
    ("a gorgeous, witty movie", "positive"),
    ("two hours {that}\nfeel like five", "negative"),
    ("a warm film", "positive"),
    ("dull", "negative"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(gemma(seed=9), tmp_path_factory.mktemp("few-shot") / "model")


@pytest.fixture(scope="module")
def bundle(model: Path) -> Path:
    rows = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in EXAMPLES)
    (model.parent / "examples.jsonl").write_text(rows, encoding="utf-8")
    command = ["build", "--model", model, "--labels", "positive,negative", "--prompt", PROMPT]
    command += ["--few-shot", model.parent / "examples.jsonl", "--shots", 2, "--seed", 1]
    command += ["--precision", "fp32", "-o", model.parent / "bundle"]
    done = CliRunner().invoke(main, [str(it) for it in command])
    assert done.exit_code == 0, done.output
    return model.parent / "bundle"


def test_the_bundle_answers_as_the_untrimmed_model_on_prompt_and_examples(
    model: Path, bundle: Path
) -> None:
    manifest = read_manifest(bundle)
    start, _, end = manifest.prompt.template.partition("{text}")
    start = start.replace("{{", "{").replace("}}", "}")
    for text, label in EXAMPLES:
        assert start.count(f"Review: {text}\nSentiment: {label}\n\n") == 1
    assert start.count("Review: ") == 5
    judge = Untrimmed(model)
    texts = [text for text in TEXTS if text and text[0] != " "]
    rows = [judge.ids(start + text + end) for text in texts]
    tokens = [label.token_ids[0] for label in manifest.labels]
    expected = judge.logits_of(rows, tokens)
    mutant = judge.logits_of([without_one(row, 5) for row in rows], tokens)
    found = Classifier.load(bundle).logits(texts)
    assert expected.std(axis=0).mean() >= 1
    assert np.abs(found - expected).max() < 1e-3
    assert np.abs(found - mutant).max() > 0.1


def test_eval_says_that_examples_are_judged_by(bundle: Path, tmp_path: Path) -> None:
    for name, rows, said in (
        ("seen.jsonl", [*EXAMPLES[:3], ("dull film", "negative")], "Note: 3 texts of"),
        ("new.jsonl", [("film", "positive"), ("dull film", "negative")], None),
    ):
        lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
        command = ["eval", str(bundle), str(tmp_path / name), "-o", str(tmp_path / "page.html")]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
        assert ("in the bundle's prompt as examples" in done.stderr) == (said is not None)
        assert said is None or said in done.stderr
