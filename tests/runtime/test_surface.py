"""The public surface, and what importing it must not load."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import trimexport_runtime


def test_the_public_surface() -> None:
    assert sorted(trimexport_runtime.__all__) == [
        "Backbone",
        "BackendError",
        "BundleError",
        "Classifier",
        "FORMAT_VERSION",
        "Input",
        "InputError",
        "IntegrityError",
        "Manifest",
        "PackError",
        "Prediction",
        "TrimexportRuntimeError",
        "VersionError",
        "__version__",
        "check_files",
        "read_manifest",
    ]
    assert all(hasattr(trimexport_runtime, name) for name in trimexport_runtime.__all__)
    methods = {name for name in dir(trimexport_runtime.Classifier) if not name.startswith("_")}
    assert methods == {
        "classify",
        "classify_each",
        "classify_stream",
        "encode",
        "labels",
        "load",
        "logits",
        "most_characters",
        "most_rows",
        "predictions",
        "provider",
        "run",
    }


def test_the_error_tree() -> None:
    tree = trimexport_runtime
    assert issubclass(tree.IntegrityError, tree.BundleError)
    assert issubclass(tree.PackError, tree.BundleError)
    assert issubclass(tree.VersionError, tree.BundleError)
    for kind in (tree.BundleError, tree.InputError, tree.BackendError):
        assert issubclass(kind, tree.TrimexportRuntimeError)


def test_the_distribution() -> None:
    assert version("trimexport-runtime") == trimexport_runtime.__version__
    needed = [it for it in requires("trimexport-runtime") or () if "extra ==" not in it]
    assert {it.split(">")[0] for it in needed} == {
        "click",
        "numpy",
        "onnxruntime",
        "tokenizers",
        "tqdm",
    }
    assert (Path(trimexport_runtime.__file__).parent / "py.typed").is_file()


def _modules(code: str, *arguments: str) -> set[str]:
    """The top-level modules loaded once `code` has run in a fresh interpreter."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", code, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_classifying_loads_nothing_heavy(bundle: Path) -> None:
    loaded = _modules(
        "import sys, trimexport_runtime as t; t.Classifier.load(sys.argv[1]).classify(['a'])",
        str(bundle),
    )
    assert {"trimexport_runtime", "onnxruntime", "tokenizers"} <= loaded
    assert not loaded & {"torch", "transformers", "onnx", "trimexport"}


def test_reading_a_manifest_does_not_load_onnxruntime(bundle: Path) -> None:
    loaded = _modules(
        "import sys, pathlib, trimexport_runtime as t, trimexport_runtime.cli\n"
        "t.read_manifest(pathlib.Path(sys.argv[1]))",
        str(bundle),
    )
    assert "onnxruntime" not in loaded
