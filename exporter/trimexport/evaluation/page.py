"""An evaluation for people: lines for a terminal, and one HTML page."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from .plots import plots
from .run import Evaluation

SHOWN = 300  # characters of a text
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


def page(title: str, evaluations: Sequence[Evaluation], labels: Sequence[str]) -> str:
    """All variants on one page without anything from elsewhere."""
    body = "".join(_section(it, labels) for it in evaluations)
    return _PAGE.format(title=html.escape(title), body=body)


def _section(evaluation: Evaluation, labels: Sequence[str]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in facts(evaluation)
    )
    each = "".join(
        f"<tr><th>{html.escape(it.label)}</th><td>{it.precision:.1%}</td><td>{it.recall:.1%}</td>"
        f"<td>{it.f1:.1%}</td><td>{it.support:,}</td></tr>"
        for it in evaluation.scores.labels
    )
    wrong = "".join(
        f"<tr><td>{html.escape(it.answer)}, {it.probability:.1%}</td>"
        f"<td>{html.escape(it.gold)}</td><td>{html.escape(it.text[:SHOWN])}</td></tr>"
        for it in evaluation.mistakes
    )
    drawn = "".join(f"<figure>{plot}</figure>" for plot in plots(evaluation, labels))
    return (
        f"<h2>{html.escape(evaluation.variant)}</h2><table>{rows}</table>"
        f'<div class="plots">{drawn}</div>'
        "<table><tr><th>label</th><th>precision</th><th>recall</th><th>F1</th><th>texts</th></tr>"
        f"{each}</table><h3>Wrong, and most sure</h3>"
        f"<table><tr><th>answer</th><th>right</th><th>text</th></tr>{wrong}</table>"
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem;
  padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ border-bottom: 1px solid #ccc; padding: .25rem .75rem; text-align: left;
  vertical-align: top }}
.plots {{ display: flex; flex-wrap: wrap; gap: 1rem }}
figure {{ margin: 0 }}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""
