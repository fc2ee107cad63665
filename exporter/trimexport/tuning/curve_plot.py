"""The data-efficiency curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure

from trimexport.evaluation.plots import STYLE

from .trials import Point

SIZE = (5.6, 3.8)  # inches
RESOLUTION = 150  # dots per inch


def draw_curve(points: Sequence[Point], target: Path) -> None:
    """Write `target` with the endings .png and .svg."""
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=SIZE, layout="constrained")
        _draw(figure.subplots(), points)
        figure.savefig(target.with_suffix(".png"), dpi=RESOLUTION)
        figure.savefig(target.with_suffix(".svg"), metadata={"Date": None})


def _draw(axes: Any, points: Sequence[Point]) -> None:
    shots = [it.shots for it in points]
    lower = [it.accuracy - it.least for it in points]
    upper = [it.most - it.accuracy for it in points]
    means = [it.accuracy for it in points]
    axes.errorbar(
        shots, means, yerr=[lower, upper], marker="o", capsize=4, label="fitted (mean, range)"
    )
    axes.plot(shots, [it.calibrated for it in points], "--", marker=".", label="batch-calibrated")
    axes.plot(shots, [it.zero_shot for it in points], ":", color="grey", label="zero-shot")
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [f"{it:,}" for it in shots])
    axes.minorticks_off()
    axes.set(title="Data efficiency", xlabel="examples of each label", ylabel="accuracy")
    axes.legend()
