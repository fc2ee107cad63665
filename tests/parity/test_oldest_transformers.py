"""The oldest transformers that is supported builds every family as the newest judges it.

`make test` installs it in a directory of its own, named by TRIMEXPORT_OLDEST_TRANSFORMERS.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from families import FAMILIES, make
from models import GEMMA_MINI, TEXTS, Untrimmed, pipeline_logits, segments_without_gap, without_one
from trimexport_runtime import Classifier, read_manifest

PROMPT = "Read the review. Then say what it is.\n\nReview: {text}\nSentiment:"
# gemma-mini is the Gemma; a variant of another row is not built twice, nor what is Llama's code.
TWICE = ("gemma", "smollm", "phi3", "mistral", "qwen2")
LANGUAGE_MODELS = [name for name in FAMILIES if name not in TWICE]
BUILD = """
import gc, sys
from pathlib import Path
import transformers
assert transformers.__version__.startswith("4.57."), transformers.__version__
from trimexport import BuildSpec, UnsupportedError, build, plan
gc.freeze()  # what is imported stays: no collection looks through it
FP32 = ("fp32",)
for model in sys.argv[3:]:
    labels = ("positive", "negative")
    spec = BuildSpec(precision=FP32, model=model, labels=labels, prompt=sys.argv[1])
    build(spec, Path(sys.argv[2]) / Path(model).name)
spec = BuildSpec(precision=FP32, model=sys.argv[2] + "/classifier")
build(spec, Path(sys.argv[2]) / "classifier-bundle")
try:
    plan(BuildSpec(precision=FP32, model=sys.argv[2] + "/unknown"))
except UnsupportedError as error:
    Path(sys.argv[2], "refusal").write_text(str(error))
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of each family and of gemma-mini, beside the models they were built from."""
    oldest = os.environ.get("TRIMEXPORT_OLDEST_TRANSFORMERS")
    if not oldest:
        pytest.skip("TRIMEXPORT_OLDEST_TRANSFORMERS is not set; `make test` sets it")
    work = tmp_path_factory.mktemp("oldest")
    models = [make(name, work / "models" / name, layers=_layers(name)) for name in LANGUAGE_MODELS]
    make("gemma3-multimodal", work / "classifier", classifier=True, layers=1)
    make("olmo2", work / "unknown", classifier=True, layers=1)
    paths = os.pathsep.join([oldest, os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", BUILD, PROMPT, str(work), str(GEMMA_MINI), *map(str, models)],
        env={**os.environ, "PYTHONPATH": paths}, check=True,
    )  # fmt: skip
    return work


def _layers(name: str) -> int:
    """Two where layers differ in more than their window; a trace costs seconds for each."""
    return 2 if name in ("gemma3", "smollm3", "gpt2-scaled") else 1


@pytest.mark.parametrize("name", ["gemma-mini", *LANGUAGE_MODELS])
def test_its_bundle_answers_as_the_newest_transformers(name: str, bundles: Path) -> None:
    model = GEMMA_MINI if name == "gemma-mini" else bundles / "models" / name
    judge, manifest = Untrimmed(model), read_manifest(bundles / name)
    assert manifest.tool_versions["transformers"].startswith("4.57.")
    tokens = [label.token_ids[0] for label in manifest.labels]
    texts, rows = segments_without_gap(PROMPT, judge, manifest, bundles / name)
    expected = judge.logits_of(rows, tokens)
    found = Classifier.load(bundles / name).logits(texts)
    assert np.abs(found - expected).max() < 1e-3
    assert expected.std() >= 1
    last = len(manifest.prompt.prefix_ids) - 1
    mutant = judge.logits_of([without_one(row, last) for row in rows], tokens)
    assert np.abs(found - mutant).max() > 0.1


def test_its_fine_tuned_classifier_answers_as_the_newest_pipeline(bundles: Path) -> None:
    texts = [text for text in TEXTS if text]
    expected = pipeline_logits(bundles / "classifier", texts)
    found = Classifier.load(bundles / "classifier-bundle").classify(texts)
    assert np.abs(np.log([item.probabilities for item in found]) - expected).max() < 1e-3


def test_a_classifier_that_only_newer_ones_have_is_refused(bundles: Path) -> None:
    assert re.fullmatch(
        r".*unknown is a Olmo2ForSequenceClassification, which transformers 4\.57\.\d+ has not; "
        "install the newest version that this release was tested with",
        (bundles / "refusal").read_text(encoding="utf-8"),
    )
