"""The scripts of benchmarks/ fit the project as it is: what they import is there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", [path.stem for path in SCRIPTS])
def test_a_script_can_be_imported(script: str) -> None:
    importlib.import_module(script)
