"""The fault benchmark in small: each accepted request gets its own answer, whatever else comes, and
after SIGTERM too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from packages import ROOT


def test_a_mixed_load(bundle: Path) -> None:
    texts = ROOT / "docs" / "examples" / "reviews.csv"
    options = ["--requests", "1500", "--seconds", "0", "--clients", "50"]
    found = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "faults.py", bundle, texts, *options],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "SIGTERM in the middle" in found.stdout
