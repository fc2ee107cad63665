"""Packages that only some tests need, each in a directory of its own: see tests/wheels/*.txt and
tests/clients/package.json."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def needs_wheels(name: str) -> Path:
    """The directory with the packages of `wheels/NAME.txt`; the test is skipped without it."""
    root = os.environ.get("TRIMEXPORT_WHEELS")
    path = Path(root or "") / name
    if not root or not any(path.glob("*.dist-info")):
        pytest.skip(f"{name} is not in TRIMEXPORT_WHEELS (tests/wheels/{name}.txt)")
    return path


def oldest_transformers() -> Path:
    """The directory of the oldest transformers; the test is skipped without it."""
    root = os.environ.get("TRIMEXPORT_OLDEST_TRANSFORMERS")
    if not root or not Path(root).is_dir():
        pytest.skip("TRIMEXPORT_OLDEST_TRANSFORMERS names no directory (constraints-oldest.txt)")
    return Path(root)


def needs_node_modules() -> Path:
    """The packages of clients/package.json; the test is skipped without them, or without Node."""
    path = Path(os.environ.get("TRIMEXPORT_NODE_MODULES") or "none")
    if not (path / "@huggingface" / "transformers").is_dir():
        pytest.skip("TRIMEXPORT_NODE_MODULES lacks the packages of tests/clients/package.json")
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    return path


def needs_chromium() -> str:
    """The program that CHROMIUM names, or one that is installed; the test is skipped without."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip(
            "chromium is not installed (`apt-get install chromium`, or Google Chrome); the "
            "environment variable CHROMIUM can name one"
        )
    return found


def run_with(
    directories: Sequence[Path],
    *command: str,
    cwd: Path | None = None,
    timeout: float = 300,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run Python with these directories in front of what it finds now; `timeout` is in seconds."""
    before = filter(None, [os.environ.get("PYTHONPATH")])
    path = os.pathsep.join([*map(str, directories), *before])
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
