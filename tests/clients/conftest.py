"""A bundle as other people's programs get it, and Node to run some of them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packages import ROOT, needs_node_modules
from tasks import SENTIMENT
from trimexport import build
from trimexport_runtime import Classifier

PAGE = ROOT / "docs" / "clients.md"
TEXTS = [
    "a gorgeous, witty, seductive movie",
    "two hours that feel like five",
    "dull",
    "",
    "  schön – 好 \t🎬\n<b>never</b> a <bos> dull moment <pad>",
    "A warm, funny and beautifully acted film. " * 100,  # over the limit
]

Node = Callable[..., str]


@pytest.fixture(scope="session")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of gemma-mini's first task in three forms; int4 has weights in int8's data file.
    Shared: do not change it, copy it."""
    spec = replace(SENTIMENT, precision=("fp32", "int8", "int4"))
    return build(spec, tmp_path_factory.mktemp("bundles") / "variants").directory


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Run a program with Node, beside the packages of package.json; what it prints."""
    modules = needs_node_modules()
    (tmp_path / "node_modules").symlink_to(modules, target_is_directory=True)

    def run(program: str, *arguments: object) -> str:
        (tmp_path / "program.mjs").write_text(program, encoding="utf-8")
        command = ["node", "program.mjs", *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def snippet(language: str, heading: str) -> str:
    """The first block in a language below a heading of docs/clients.md."""
    text = PAGE.read_text(encoding="utf-8")
    section = re.split(rf"^## {re.escape(heading)}\n", text, flags=re.MULTILINE)[1]
    found = re.search(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def with_line(program: str, name: str, line: str) -> str:
    """A program with another line where it gives `name` its value."""
    changed, count = re.subn(rf"^(const )?{name} = .*$", lambda _: line, program, flags=re.M)
    assert count == 1, f"{name} is given its value in {count} lines"
    return changed


def with_text(program: str, old: str, new: str) -> str:
    """A program with another text in the place of one that it has once."""
    assert program.count(old) == 1, f"{old} is there {program.count(old)} times"
    return program.replace(old, new)


def by_label(scores: list[dict[str, Any]]) -> dict[str, float]:
    """What a text-classification pipeline answers to a text, with all labels."""
    return {it["label"]: it["score"] for it in scores}


def compare(answers: list[dict[str, float]], bundle: Path, variant: str) -> float:
    """Check that the labels of answers to `TEXTS` are the runtime's; the largest difference of a
    probability."""
    classifier = Classifier.load(bundle, variant=variant)
    expected = classifier.classify(TEXTS)
    assert [max(it, key=lambda label: it[label]) for it in answers] == [it.label for it in expected]
    assert expected[-1].truncated
    found = np.array([[it[label] for label in classifier.labels] for it in answers])
    return float(np.abs(found - [it.probabilities for it in expected]).max())


def as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
