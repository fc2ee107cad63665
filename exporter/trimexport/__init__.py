"""Compile text classifiers out of decoder language models.

from trimexport import BuildSpec, build

build(BuildSpec(model="google/gemma-2b", labels=("positive", "negative"),
                prompt="Review: {text}\\nSentiment:"), Path("build/sentiment"))

The names below are the public surface. Those that need PyTorch are imported on first use, so that
`import trimexport` and the command line's help stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    CheckpointError,
    EvaluationError,
    ExportError,
    HubError,
    OutputError,
    ParityError,
    SpecError,
    TrimexportError,
    UnsupportedError,
)
from .spec import BuildSpec, read_recipe
from .spec.question import QuestionSpec

if TYPE_CHECKING:
    from .evaluation.evaluate import evaluate
    from .evaluation.run import Evaluated
    from .model.head import TrimmedHead, trim_head
    from .packs.backbone import build_backbone
    from .packs.pack import Packed, pack
    from .packs.whole_bundle import Whole, bundle_of
    from .parity.report import ParityReport
    from .pipeline import Built, PartialBuildError, build
    from .planning import plan
    from .suggestion.suggest import Suggestion, suggest
    from .texts import Columns, Texts
    from .tuning.bias import Calibrated, calibrate, undo_calibration
    from .tuning.fit import Fitted, fit
    from .tuning.fit_depth import fit_depth
    from .verification import verify

__version__ = "0.1.0"

_LAZY = {
    "Built": ".pipeline",
    "PartialBuildError": ".pipeline",
    "build": ".pipeline",
    "plan": ".planning",
    "build_backbone": ".packs.backbone",
    "Packed": ".packs.pack",
    "pack": ".packs.pack",
    "Whole": ".packs.whole_bundle",
    "bundle_of": ".packs.whole_bundle",
    "TrimmedHead": ".model.head",
    "trim_head": ".model.head",
    "ParityReport": ".parity.report",
    "Columns": ".texts",
    "Texts": ".texts",
    "verify": ".verification",
    "Evaluated": ".evaluation.run",
    "evaluate": ".evaluation.evaluate",
    "Suggestion": ".suggestion.suggest",
    "suggest": ".suggestion.suggest",
    "Calibrated": ".tuning.bias",
    "calibrate": ".tuning.bias",
    "undo_calibration": ".tuning.bias",
    "Fitted": ".tuning.fit",
    "fit": ".tuning.fit",
    "fit_depth": ".tuning.fit_depth",
}

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name], __name__), name)
