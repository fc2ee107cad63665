"""int8 with parts of its scheme left out, written as a build writes it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from trimexport import Texts
from trimexport.bundle.correction import correct, expected_states
from trimexport.bundle.onnx_file import write_onnx
from trimexport.bundle.variants import SCHEMES as PRECISIONS
from trimexport.bundle.variants import STATIC, Precision, Seen, quantised, see
from trimexport.graph.compile import compile_graphs
from trimexport.model.layerwise import LayerwiseModel
from trimexport.planning import Plan
from trimexport.progress import Silent
from trimexport.quantize.calibration import Calibration
from trimexport.quantize.int8 import to_int8

ALONE = ", smoothed, rotated and corrected, each weight rounded by itself"
SCHEMES: Mapping[str, Precision] = {
    "fp32": PRECISIONS["fp32"],
    **{
        f"{variant}{more}": replace(
            PRECISIONS[variant], smoothed=smoothed, rotated=rotated, calibrated=corrected
        )
        for variant in ("int8", STATIC)
        for more, smoothed, rotated, corrected in (
            ("", False, False, False),
            (", smoothed", True, False, False),
            (", rotated", False, True, False),
            (", smoothed and rotated", True, True, False),
            (", smoothed, rotated and corrected", True, True, True),
        )
    },
    f"int8{ALONE}": replace(
        PRECISIONS["int8"], quantize=lambda model, factors, calibration: to_int8(model, factors)
    ),
    "int4, not corrected": replace(PRECISIONS["int4"], calibrated=False),
    "int4": PRECISIONS["int4"],
}

AS_BUILT: Mapping[str, str] = {
    "fp32": "fp32",
    "int8": "int8, smoothed, rotated and corrected",
    STATIC: f"{STATIC}, smoothed, rotated and corrected",
    "int4": "int4",
}
"""Precision -> the scheme that a build writes."""


@dataclass(frozen=True)
class Subject:
    """What is compiled once: the graphs by kind of attention, and what calibration texts show."""

    graphs: Mapping[str, ir.Model]
    seen: Seen | None


def compiled(
    planned: Plan, texts: Texts, room: Path, names: Collection[str] = tuple(SCHEMES)
) -> Subject:
    """Compile the prompt, and calibrate if one of the schemes that are named is more than float32;
    `room` is a directory for what is too much for memory."""
    model = LayerwiseModel(planned.checkpoint)
    schemes = [SCHEMES[name] for name in names]
    graphs = compile_graphs(
        planned, model, Silent(), sorted({scheme.attention for scheme in schemes})
    )
    if all(name == "fp32" for name in names):
        return Subject(graphs, None)
    calibration = Calibration(planned, model, texts, room, Silent())
    return Subject(graphs, see(graphs, calibration, any(scheme.smoothed for scheme in schemes)))


def write_scheme(name: str, subject: Subject, file: Path) -> None:
    """Write a graph in one of `SCHEMES`, its data beside it."""
    scheme = SCHEMES[name]
    model, _ = quantised(subject.graphs, scheme, subject.seen)
    write_onnx(model, file, file.with_suffix(".data"))
    if scheme.calibrated and subject.seen is not None:
        correct(file, expected_states(subject.seen.calibration))
