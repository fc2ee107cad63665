"""A real bundle behind HTTP, and in transformers.js."""

from __future__ import annotations

import json
from pathlib import Path

from clients.conftest import Node, as_json, by_label, snippet, with_line
from real.conftest import REVIEWS
from server.conftest import Serve
from trimexport_runtime import Classifier

TEXTS = list(REVIEWS.texts)


def test_the_server(bundle: Path, serve: Serve) -> None:
    status, answer, _ = serve(bundle).ask("POST", "/classify", {"texts": TEXTS})
    assert (status, answer["variant"]) == (200, "int8")
    expected = Classifier.load(bundle).classify(TEXTS)
    found = [tuple(it["probabilities"].values()) for it in answer["predictions"]]
    assert found == [it.probabilities for it in expected]


def test_transformers_js(bundle: Path, tmp_path: Path, node: Node) -> None:
    """The page's program with int8."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "sentiment").symlink_to(bundle, target_is_directory=True)
    program = snippet("js", "transformers.js")
    program = with_line(program, "dtype", 'const dtype = "int8";')
    program = with_line(program, "texts", f"const texts = {as_json(TEXTS)};")
    answers = json.loads(node(program))
    expected = Classifier.load(bundle, variant="int8").classify(TEXTS)
    for found, prediction in zip(map(by_label, answers), expected, strict=True):
        assert max(found, key=lambda label: found[label]) == prediction.label
        assert abs(found[prediction.label] - prediction.probability) < 0.02
