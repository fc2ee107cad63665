"""An evaluation as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .run import Evaluation

ROW = "{:<24} {:>9} {:>9} {:>9} {:>9}"


def text_lines(evaluation: Evaluation, labels: Sequence[str]) -> list[str]:
    """The lines for one variant: the facts, each label's scores, and the confusion matrix if there
    are at most 10 labels."""
    scores = evaluation.scores
    lines = [
        *(f"{name:<24} {value}" for name, value in facts(evaluation)),
        "",
        ROW.format("label", "precision", "recall", "F1", "texts"),
        *(
            ROW.format(
                own.label, f"{own.precision:.1%}", f"{own.recall:.1%}", f"{own.f1:.1%}", own.support
            )
            for own in scores.labels
        ),
    ]
    if len(labels) <= 10:
        lines += ["", "right answer, and how often each was given:"]
        width = max(9, *map(len, labels))
        lines.append(" " * 24 + " ".join(f"{label:>{width}}" for label in labels))
        lines += [
            f"{label:<24}" + " ".join(f"{count:>{width},}" for count in row)
            for label, row in zip(labels, scores.confusion, strict=True)
        ]
    return lines


def facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The numbers that belong to no single label, as names and values."""
    scores, speed = evaluation.scores, evaluation.speed
    low, high = scores.interval
    least, median, most = np.percentile(evaluation.tokens, [0, 50, 100]).tolist()
    pairs = [
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
        pairs.append(
            (f"from {point.threshold:.0%} on", f"{point.coverage:.1%} of the texts, {accuracy}")
        )
    if (other := evaluation.comparison) is not None:
        low, high = other.interval
        pairs.append(
            (
                "against the earlier",
                f"{other.difference:+.2%} (95 %: {low:+.2%} to {high:+.2%}), p = "
                f"{other.p_value:.3g}; {other.only_second:,} texts are right only now, "
                f"{other.only_first:,} were right only then",
            )
        )
    return pairs
