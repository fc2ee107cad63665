"""The public surface of trimexport, and what importing it must not load."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import pytest

import trimexport


def test_the_public_surface() -> None:
    assert sorted(trimexport.__all__) == [
        "BuildSpec",
        "Built",
        "Calibrated",
        "CheckpointError",
        "Columns",
        "Evaluated",
        "EvaluationError",
        "ExportError",
        "Fitted",
        "HubError",
        "OutputError",
        "Packed",
        "ParityError",
        "ParityReport",
        "PartialBuildError",
        "QuestionSpec",
        "SpecError",
        "Suggestion",
        "Texts",
        "TrimexportError",
        "TrimmedHead",
        "UnsupportedError",
        "Whole",
        "__version__",
        "build",
        "build_backbone",
        "bundle_of",
        "calibrate",
        "evaluate",
        "fit",
        "fit_depth",
        "pack",
        "plan",
        "read_recipe",
        "suggest",
        "trim_head",
        "undo_calibration",
        "verify",
    ]
    assert all(hasattr(trimexport, name) for name in trimexport.__all__)


def test_what_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'quantise'"):
        _ = trimexport.quantise


def test_functions_are_not_hidden_by_modules() -> None:
    from trimexport import pipeline, verification
    from trimexport.evaluation import evaluate
    from trimexport.suggestion import suggest
    from trimexport.tuning import bias, fit

    assert trimexport.build is pipeline.build
    assert trimexport.verify is verification.verify
    assert trimexport.evaluate is evaluate.evaluate
    assert trimexport.suggest is suggest.suggest
    assert trimexport.calibrate is bias.calibrate
    assert trimexport.fit is fit.fit


def test_the_error_tree() -> None:
    tree = trimexport
    assert issubclass(tree.UnsupportedError, tree.CheckpointError)
    assert issubclass(tree.HubError, tree.CheckpointError)
    kinds = (tree.SpecError, tree.CheckpointError, tree.ExportError, tree.EvaluationError)
    for kind in (*kinds, tree.OutputError, tree.ParityError):
        assert kind.__bases__ == (tree.TrimexportError,)


def test_the_distribution() -> None:
    assert version("trimexport") == trimexport.__version__
    assert f"trimexport-runtime=={version('trimexport-runtime')}" in (requires("trimexport") or [])
    (script,) = [it for it in entry_points(group="console_scripts") if it.name == "trimexport"]
    assert script.load().name == "main"
    assert (Path(trimexport.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize(
    "code",
    [
        "import trimexport; trimexport.BuildSpec; trimexport.read_recipe",
        "from trimexport.cli import main; main(['--help'], standalone_mode=False)",
        "from trimexport.cli import main; main(['build', '--help'], standalone_mode=False)",
        "from trimexport.cli import main; main(['suggest', '--help'], standalone_mode=False)",
        "from trimexport.cli import main; main(['eval', '--help'], standalone_mode=False)",
        "from trimexport.cli import main; main(['--version'], standalone_mode=False)",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    code += "\nimport sys; print({name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = eval(run.stderr)
    assert "trimexport" in loaded
    assert not loaded & {"torch", "transformers", "onnx", "onnxruntime", "huggingface_hub"}


def test_evaluating_needs_no_pytorch(tiny_bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from trimexport import Texts, calibrate, evaluate, fit\n"
        "evaluate(Path(sys.argv[1]), Texts(('a', 'b'), ('positive', 'negative')))\n"
        "print({name.split('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", code, str(tiny_bundle)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = eval(run.stdout)
    assert {"sklearn", "onnxruntime"} <= loaded
    assert not loaded & {"torch", "transformers"}
