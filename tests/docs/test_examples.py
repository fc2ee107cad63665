"""The Python in the documents runs, in the order in which it is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trimexport_runtime import read_manifest

ROOT = Path(__file__).resolve().parents[2]
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _examples(page: str) -> str:
    return "\n".join(_PYTHON.findall((ROOT / "docs" / page).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that looks like a checkout, and to which the examples may write."""
    path = tmp_path_factory.mktemp("checkout")
    for name in ("models", "docs"):
        (path / name).symlink_to(ROOT / name)
    return path


def test_the_python_page(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    exec(compile(_examples("python.md"), "docs/python.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "True"  # within tolerance
    assert lines[2] == "('positive', 'negative')"
    assert lines[5] == "True"  # the trimmed head gives the model's logits
    assert [line.split()[0] for line in lines[6:8]] == ["int8", "fp32"]  # evaluated
    assert lines[10] == "()"  # the calibration is undone
    assert read_manifest(place / "build" / "fitted").fit is not None
    assert lines[12].startswith("[")  # the best words


def test_the_client_of_the_how_to(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs on the bundle that the Python page built."""
    monkeypatch.chdir(place)
    if not (place / "build" / "reviews").is_dir():
        pytest.skip("the Python page did not build its bundle")
    exec(compile(_examples("how-to.md"), "docs/how-to.md", "exec"), {})
    assert capsys.readouterr().out.strip() == "['positive', 'negative']"
