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

from models import GEMMA_MINI, TEXTS, llama, save
from trimexport import BuildSpec, build
from trimexport_runtime import Classifier

LABELS = ("positive", "negative")
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
def test_both_ends_of_the_supported_range_agree(family: str, oldest: str, tmp_path: Path) -> None:
    model = GEMMA_MINI if family == "gemma" else save(llama(seed=9), tmp_path / "model")
    old, new = tmp_path / "old", tmp_path / "new"
    paths = os.pathsep.join([oldest, os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", BUILD, str(model), PROMPT, str(old)],
        env={**os.environ, "PYTHONPATH": paths}, check=True,
    )  # fmt: skip
    build(BuildSpec(model=str(model), labels=LABELS, prompt=PROMPT), new)
    texts = [text for text in TEXTS if text]
    ours = Classifier.load(new).logits(texts)
    assert np.abs(Classifier.load(old).logits(texts) - ours).max() < 1e-4
    assert ours.std() > 0.5
