"""An evaluation as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .run import Evaluation

ROW = "{:<24} {:>9} {:>9} {:>9} {:>9}"


def lines(evaluation: Evaluation, labels: Sequence[str]) -> list[str]:
    """What is printed of one variant."""
    scores = evaluation.scores
    found = [
        *(f"{name:<24} {value}" for name, value in facts(evaluation)),
        "",
        ROW.format("label", "precision", "recall", "F1", "texts"),
        *(
            ROW.format(
                it.label, f"{it.precision:.1%}", f"{it.recall:.1%}", f"{it.f1:.1%}", it.support
            )
            for it in scores.labels
        ),
    ]
    if len(labels) <= 10:
        found += ["", "right answer, and how often each was given:"]
        width = max(9, *map(len, labels))
        found.append(" " * 24 + " ".join(f"{label:>{width}}" for label in labels))
        found += [
            f"{label:<24}" + " ".join(f"{count:>{width},}" for count in row)
            for label, row in zip(labels, scores.confusion, strict=True)
        ]
    return found


def facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Names and values of what there is one number of."""
    scores, speed = evaluation.scores, evaluation.speed
    low, high = scores.interval
    least, median, most = np.percentile(evaluation.tokens, [0, 50, 100]).tolist()
    found = [
        ("variant", f"{evaluation.variant} ({evaluation.provider}), {scores.texts:,} texts"),
        ("accuracy", f"{scores.accuracy:.2%} (95 %: {low:.2%} to {high:.2%})"),
        ("macro F1", f"{scores.macro_f1:.2%}"),
        ("calibration error", f"{scores.calibration_error:.2%}"),
        (
            "speed",
            f"{speed.median_ms:.2f} ms for a text alone (95 %: {speed.p95_ms:.2f} ms), "
            f"{speed.texts_per_second:,.0f} texts/s together",
        ),
        (
            "tokens of a text",
            f"{least:.0f} to {most:.0f}, median {median:.0f}; {evaluation.truncated:,} texts cut",
        ),
    ]
    if (point := evaluation.abstention) is not None:
        accuracy = "none is left" if point.accuracy is None else f"{point.accuracy:.2%} right"
        found.append(
            (f"from {point.threshold:.0%} on", f"{point.coverage:.1%} of the texts, {accuracy}")
        )
    if (other := evaluation.comparison) is not None:
        low, high = other.interval
        found.append(
            (
                "against the earlier",
                f"{other.difference:+.2%} (95 %: {low:+.2%} to {high:+.2%}), p = "
                f"{other.p_value:.3g}; {other.only_second:,} texts are right now alone, "
                f"{other.only_first:,} were",
            )
        )
    return found
