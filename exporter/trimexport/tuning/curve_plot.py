"""The data-efficiency curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure

from trimexport.evaluation.plots import STYLE

from .trials import CurvePoint

SIZE = (5.6, 3.8)  # inches
RESOLUTION = 150  # dots per inch


def draw_curve(points: Sequence[CurvePoint], target: Path) -> None:
    """Write `target` with the endings .png and .svg."""
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=SIZE, layout="constrained")
        _draw(figure.subplots(), points)
        figure.savefig(target.with_suffix(".png"), dpi=RESOLUTION)
        figure.savefig(target.with_suffix(".svg"), metadata={"Date": None})


def _draw(axes: Any, points: Sequence[CurvePoint]) -> None:
    shots = [point.shots for point in points]
    lower = [point.accuracy - point.least for point in points]
    upper = [point.most - point.accuracy for point in points]
    means = [point.accuracy for point in points]
    calibrated = [point.calibrated for point in points]
    zero_shot = [point.zero_shot for point in points]
    axes.errorbar(
        shots, means, yerr=[lower, upper], marker="o", capsize=4, label="fitted (mean, range)"
    )
    axes.plot(shots, calibrated, "--", marker=".", label="batch-calibrated")
    axes.plot(shots, zero_shot, ":", color="grey", label="zero-shot")
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [f"{number:,}" for number in shots])
    axes.minorticks_off()
    axes.set(title="Data efficiency", xlabel="examples of each label", ylabel="accuracy")
    axes.legend()
