"""The page of docs/demo in headless Chromium, on a static file server, as docs/clients.md says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.conftest import TEXTS, Node, as_json, compare
from packages import ROOT, needs_chromium, needs_node_modules

DRIVER = Path(__file__).with_name("open_page.mjs")


@pytest.fixture
def site(variants: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a server with the page, the bundle, transformers.js and nothing else."""
    modules = needs_node_modules()
    place = shutil.copytree(ROOT / "docs" / "demo", tmp_path / "site")
    (place / "node_modules").symlink_to(modules, target_is_directory=True)
    (place / "bundle").symlink_to(variants, target_is_directory=True)
    options = ("0", "--bind", "127.0.0.1", "--directory", str(place))
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    port = re.search(r"port (\d+)", process.stdout.readline())
    assert port is not None
    yield f"http://127.0.0.1:{port[1]}"
    process.terminate()
    process.communicate(timeout=60)


def opened(node: Node, site: str, queries: list[str], texts: list[str]) -> list[Any]:
    """For each query what the page shows at first and for each text; it asks no other server."""
    program = DRIVER.read_text(encoding="utf-8")
    addresses = [f"{site}/{query}" for query in queries]
    answer = json.loads(node(program, needs_chromium(), as_json(addresses), as_json(texts)))
    assert answer["servers"] == [site]
    found: list[Any] = answer["found"]
    return found


@pytest.mark.parametrize(
    ("query", "variant", "dtype", "difference"),
    [
        ("", "fp32", "fp32", 1e-3),
        ("?bundle=/bundle/&dtype=int8", "int8", "int8", 0.02),
        ("?dtype=q4", "int4", "q4", 0.02),  # with weights in another variant's file
    ],
)
def test_the_page(
    variants: Path, node: Node, site: str, query: str, variant: str, dtype: str, difference: float
) -> None:
    """The labels are the runtime's, and so are the probabilities: in fp32 to 1e-3, in the others
    as far as other kernels round alike."""
    first, *shown = opened(node, site, [query], TEXTS)[0]
    assert first["labels"][0]["best"]
    assert {it["error"] for it in (first, *shown)} == {""}
    for it in shown:
        assert [row["label"] for row in it["labels"]] == ["positive", "negative"]
        best = max(it["labels"], key=lambda row: row["probability"])
        assert [row["best"] for row in it["labels"]] == [row is best for row in it["labels"]]
        assert [row["text"] for row in it["labels"]] == [
            f"{100 * row['probability']:.1f} %" for row in it["labels"]
        ]
        assert re.fullmatch(rf"\d+\.\d ms, {dtype}", it["status"])
    answers = [{row["label"]: row["probability"] for row in it["labels"]} for it in shown]
    assert compare(answers, variants, variant) < difference


def test_what_does_not_work_is_said(node: Node, site: str) -> None:
    said = {
        "?bundle=nowhere": "/nowhere/config.json cannot be read: 404",
        "?dtype=q2": "/bundle has no onnx/model_q2.onnx",
        "?bundle=http://127.0.0.2/bundle": "the bundle has to be on this server",
    }
    for (shown,), error in zip(opened(node, site, list(said), []), said.values(), strict=True):
        assert shown == {"labels": [], "status": "", "error": f"This does not work: {error}"}
