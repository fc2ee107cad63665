"""The oldest transformers that is supported builds the same bundle.

`make test` installs it in a directory of its own, named by TRIMEXPORT_OLDEST_TRANSFORMERS.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models import GEMMA_MINI, TEXTS, Untrimmed, llama, save
from trimexport_runtime import Classifier, read_manifest

PROMPT = "Review: {text}\nSentiment:"
BUILD = """
import sys
from pathlib import Path
import transformers
assert transformers.__version__.startswith("4.57."), transformers.__version__
from trimexport import BuildSpec, build
spec = BuildSpec(model=sys.argv[1], labels=("positive", "negative"), prompt=sys.argv[2])
report = build(spec, Path(sys.argv[3])).report
assert report.within
"""


@pytest.fixture(scope="module")
def oldest() -> str:
    directory = os.environ.get("TRIMEXPORT_OLDEST_TRANSFORMERS")
    if not directory:
        pytest.skip("TRIMEXPORT_OLDEST_TRANSFORMERS is not set; `make test` sets it")
    return directory


@pytest.mark.parametrize("family", ["gemma", "llama"])
def test_its_bundle_answers_as_the_newest_transformers(
    family: str, oldest: str, tmp_path: Path
) -> None:
    model = GEMMA_MINI if family == "gemma" else save(llama(seed=9), tmp_path / "model")
    bundle = tmp_path / "bundle"
    paths = os.pathsep.join([oldest, os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", BUILD, str(model), PROMPT, str(bundle)],
        env={**os.environ, "PYTHONPATH": paths}, check=True,
    )  # fmt: skip
    judge = Untrimmed(model)
    tokens = [label.token_ids[0] for label in read_manifest(bundle).labels]
    texts = [text for text in TEXTS if text and text[0] != " "]
    rows = [judge.ids(PROMPT.replace("{text}", text)) for text in texts]
    expected = np.stack([judge.logits(row)[tokens].numpy() for row in rows])
    found = Classifier.load(bundle).logits(texts)
    assert np.abs(found - expected).max() < 1e-3
    assert expected.std() >= 1
