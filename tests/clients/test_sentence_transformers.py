"""sentence-transformers' CrossEncoder on a bundle's directory, by its ONNX backend."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from clients.conftest import snippet, with_line
from packages import needs_wheels, oldest_transformers, run_with
from scored_bundles import pair_bundle
from trimexport_runtime import Classifier
from trimexport_runtime.score import LOG_ODDS

PAIRS = [
    ("who wrote it", "It was written by Ann."),
    ("who", ""),
    ("schön – 好 \n", " a <eos> dull <bos>\tmoment"),
    ("who wrote it", "A warm, funny and beautifully acted film. " * 40),  # over the limit
]
SHOW = """
import json
ranks = model.rank(pairs[0][0], [document for _, document in pairs])
print(json.dumps([scores.tolist(), [it["corpus_id"] for it in ranks]]))
"""


def test_cross_encoder(tmp_path: Path) -> None:
    """The page's program, with pairs of all kinds: the scores are the runtime's, so the ids between
    the fields and the sigmoid are."""
    directories = [
        oldest_transformers(), needs_wheels("optimum"), needs_wheels("sentence-transformers"),
    ]  # fmt: skip
    bundle = pair_bundle(tmp_path / "bundle", LOG_ODDS)
    program = snippet("python", "sentence-transformers")
    program = with_line(program, "bundle", f"bundle = {str(bundle)!r}")
    program = with_line(program, "pairs", f"pairs = {PAIRS!r}")
    run = run_with(directories, "-c", program + SHOW)
    assert run.returncode == 0, run.stderr
    scores, ranks = json.loads(run.stdout.splitlines()[-1])
    classifier = Classifier.load(bundle)
    expected = classifier.classify(PAIRS)
    assert [it.truncated for it in expected] == [False, False, False, True]
    assert np.allclose(scores, [it.probabilities[0] for it in expected], atol=1e-5)
    rows = classifier.classify([(PAIRS[0][0], document) for _, document in PAIRS])
    shares = [it.probabilities[0] for it in rows]
    assert ranks == sorted(range(len(PAIRS)), key=lambda place: -shares[place])
