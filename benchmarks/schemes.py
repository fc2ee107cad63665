"""int8 with parts of its scheme left out, written as a build writes it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from trimexport import Texts
from trimexport.bundle.onnx_file import write_onnx
from trimexport.bundle.variants import SCHEMES as PRECISIONS
from trimexport.bundle.variants import STATIC, Precision, Seen, quantised
from trimexport.graph.compile import compile_graphs
from trimexport.model.layerwise import LayerwiseModel
from trimexport.planning import Plan
from trimexport.progress import Silent
from trimexport.quantize.calibration import Calibration
from trimexport.quantize.smooth import largest_weights

SCHEMES: Mapping[str, Precision] = {
    "fp32": PRECISIONS["fp32"],
    **{
        f"{variant}{more}": replace(PRECISIONS[variant], smoothed=smoothed, rotated=rotated)
        for variant in ("int8", STATIC)
        for more, smoothed, rotated in (
            ("", False, False),
            (", smoothed", True, False),
            (", rotated", False, True),
            (", smoothed and rotated", True, True),
        )
    },
    "int4": PRECISIONS["int4"],
}

AS_BUILT: Mapping[str, str] = {
    "fp32": "fp32",
    "int8": "int8, rotated",
    STATIC: f"{STATIC}, smoothed and rotated",
    "int4": "int4",
}
"""Precision -> the scheme that a build without `--calibration` writes."""


@dataclass(frozen=True)
class Subject:
    """What is compiled once: the graphs by kind of attention, and the calibration."""

    graphs: Mapping[str, ir.Model]
    calibration: Calibration
    seen: Seen | None = None


def compiled(
    planned: Plan, texts: Texts, room: Path, names: Collection[str] = tuple(SCHEMES)
) -> Subject:
    """Compile the prompt, and calibrate if one of the schemes that are named is smoothed; `room` is
    a directory for what is too much for memory."""
    model = LayerwiseModel(planned.checkpoint)
    schemes = [SCHEMES[name] for name in names]
    graphs = compile_graphs(
        planned, model, Silent(), sorted({scheme.attention for scheme in schemes})
    )
    calibration = Calibration(planned, model, texts, room, Silent())
    if not any(scheme.smoothed for scheme in schemes):
        return Subject(graphs, calibration)
    seen = Seen(calibration.ranges({}), largest_weights(next(iter(graphs.values()))))
    return Subject(graphs, calibration, seen)


def write_scheme(name: str, subject: Subject, file: Path) -> None:
    """Write a graph in one of `SCHEMES`, its data beside it."""
    model, _ = quantised(subject.graphs, SCHEMES[name], subject.seen, subject.calibration)
    write_onnx(model, file, file.with_suffix(".data"))


def precision_of(name: str) -> str:
    """The precision that a scheme's products are of."""
    return name.partition(",")[0]
