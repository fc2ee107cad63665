"""What a device gets: the runtime alone, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1_000_000

CLASSIFY = """
import resource, sys
from trimexport_runtime import Classifier

label = Classifier.load(sys.argv[1]).classify(["a gorgeous, witty, seductive movie"])[0].label
used = resource.getrusage(resource.RUSAGE_SELF)
print(label, used.ru_utime + used.ru_stime)
"""


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh virtual environment with nothing but `trimexport-runtime` in it."""
    home = tmp_path_factory.mktemp("device") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    constraints = str(ROOT / "constraints.txt")
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-compile"]
    done = subprocess.run(
        [*install, "-c", constraints, str(ROOT / "runtime")], capture_output=True, text=True
    )
    if done.returncode and "NewConnectionError" in done.stderr:
        pytest.skip("no package registry can be reached to install the runtime from")
    assert done.returncode == 0, done.stderr
    return python


def installed(device: Path) -> set[str]:
    listing = subprocess.run(
        [str(device), "-m", "pip", "list", "--format", "json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {item["name"].lower() for item in json.loads(listing.stdout)}


def test_there_is_no_training_framework(device: Path) -> None:
    names = installed(device)
    assert {"numpy", "onnxruntime", "tokenizers", "click", "trimexport-runtime"} <= names
    assert not names & {"torch", "transformers", "onnx", "onnx-ir", "trimexport", "safetensors"}


def test_it_is_small(device: Path) -> None:
    """Under 230 MB of site-packages, pip and all."""
    (packages,) = (device.parents[1] / "lib").glob("python*/site-packages")
    size = sum(file.stat().st_size for file in packages.rglob("*") if file.is_file())
    assert size < 230 * MEGABYTE


def test_it_classifies(device: Path, sentiment: Path) -> None:
    """Import, load and first answer; the processor time is printed, not judged."""
    run = subprocess.run(
        [str(device), "-I", "-c", CLASSIFY, str(sentiment)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    label, seconds = run.stdout.split()
    assert label == "positive"
    print(f"import and first classification: {float(seconds):.2f} s of CPU")


def test_its_command_runs(device: Path, sentiment: Path) -> None:
    command = device.with_name("trimexport-run")
    run = subprocess.run(
        [str(command), "info", str(sentiment), "--check", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(run.stdout)["labels"]
