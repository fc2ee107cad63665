"""The tiny checkpoint and its bundle, for tests that break them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import tiny


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """A tiny Gemma, saved by transformers. Shared: do not change it."""
    return tiny.tiny_model()


@pytest.fixture(scope="session")
def tiny_bundle() -> Path:
    """Its bundle. Shared: do not change it."""
    return tiny.tiny_bundle()


@pytest.fixture
def tiny_copy(tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to break."""
    return shutil.copytree(tiny.tiny_model(), tmp_path / "model")


@pytest.fixture
def tiny_bundle_copy(tmp_path: Path) -> Path:
    """A copy of its bundle, to break."""
    return shutil.copytree(tiny.tiny_bundle(), tmp_path / "bundle")
