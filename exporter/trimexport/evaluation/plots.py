"""The plots of an evaluation, as SVG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import matplotlib.figure
import numpy as np

from .run import Evaluation

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "trimexport",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
}
SIZE = (4.6, 3.6)  # inches
MANY = 12  # labels; with more the confusion matrix has no numbers


def plots(evaluation: Evaluation, labels: Sequence[str]) -> list[str]:
    """The plots of reliability, coverage, confusion and lengths, each an <svg> of its own."""
    drawers: list[Callable[[Any], None]] = [
        lambda axes: _reliability(axes, evaluation),
        lambda axes: _coverage(axes, evaluation),
        lambda axes: _confusion(axes, evaluation, labels),
        lambda axes: _lengths(axes, evaluation),
    ]
    return [_svg(draw) for draw in drawers]


def _svg(draw: Callable[[Any], None]) -> str:
    """The <svg> of what `draw` draws into matplotlib's axes."""
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=SIZE, layout="constrained")
        draw(figure.subplots())
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    return out.getvalue()[out.getvalue().index("<svg") :]


def _reliability(axes: Any, evaluation: Evaluation) -> None:
    bins = evaluation.scores.bins
    confidence, accuracy = [own.confidence for own in bins], [own.accuracy for own in bins]
    sizes = [20 + 180 * own.count / evaluation.scores.texts for own in bins]
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.scatter(confidence, accuracy, s=sizes)
    axes.set(
        title="Reliability", xlabel="probability of the answer", ylabel="share that is right",
        xlim=(0, 1.02), ylim=(0, 1.02),
    )  # fmt: skip


def _coverage(axes: Any, evaluation: Evaluation) -> None:
    points = [point for point in evaluation.scores.coverage if point.accuracy is not None]
    axes.plot([point.coverage for point in points], [point.accuracy for point in points])
    axes.set(
        title="Leaving out unsure answers", xlabel="share of texts answered",
        ylabel="share that is right",
    )  # fmt: skip
    if (point := evaluation.abstention) is not None and point.accuracy is not None:
        axes.scatter([point.coverage], [point.accuracy], color="tab:red", zorder=3)


def _confusion(axes: Any, evaluation: Evaluation, labels: Sequence[str]) -> None:
    counts = np.array(evaluation.scores.confusion)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(title="Answers to each label's texts", xlabel="answer", ylabel="label")
    if len(labels) > MANY:
        return
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=45, ha="right")
    axes.set_yticks(places, labels)
    for row in places:
        for column in places:
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(
                column, row, f"{counts[row, column]:,}", ha="center", va="center", color=color
            )


def _lengths(axes: Any, evaluation: Evaluation) -> None:
    axes.hist(evaluation.tokens, bins=min(40, int(np.ptp(evaluation.tokens)) + 1))
    axes.set(title="Lengths of the texts", xlabel="tokens", ylabel="texts")
