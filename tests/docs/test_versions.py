"""Both distributions and the changelog agree on the version."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import trimexport
import trimexport_runtime

ROOT = Path(__file__).resolve().parents[2]


def test_both_packages_and_the_changelog_have_one_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == trimexport.__version__ == trimexport_runtime.__version__


def test_the_exporter_requires_the_runtime_of_its_own_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"trimexport-runtime=={trimexport.__version__}" in project["dependencies"]


def test_make_installs_the_torch_of_the_constraints() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = [pin.partition("==")[0] for pin in pins if "==" in pin]
    assert "torch" in names
    assert len(names) == len(set(names))


def test_the_page_on_clients_names_what_is_tested() -> None:
    page = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    packages = json.loads((ROOT / "tests/clients/package.json").read_text(encoding="utf-8"))
    version = packages["dependencies"]["@huggingface/transformers"]
    assert set(re.findall(r"@huggingface/transformers@(\S+)", page)) == {version}
    assert set(re.findall(r"\[transformers\.js\]\(\S+\) (\S+),", page)) == {version}
    pins = (ROOT / "tests/wheels/optimum.txt").read_text(encoding="utf-8")
    optimum, onnx = re.findall(r"^optimum\S*==(\S+)$", pins, re.MULTILINE)
    assert f"Optimum](#optimum-and-transformers) {optimum} with optimum-onnx {onnx}" in page
    assert f'"optimum-onnx[onnxruntime]=={onnx}"' in page
