"""A parity report as one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimexport.pages import render_page

from .render import facts, rows
from .report import ParityReport, VariantParity

_TEMPLATE = Path(__file__).with_name("page.html.jinja")
_SIZE, _EDGE = 360, 40  # of a chart's frame, and around it, in the drawing's units
_MOST_TEXTS = 2000  # in a chart, so that the page stays small


@dataclass(frozen=True)
class _Chart:
    """A variant's probabilities against the reference's: a dot for every label of a text, at x and
    y of the drawing, and whether the two disagree on that text."""

    title: str
    dots: list[tuple[float, float, bool]]


def html_page(report: ParityReport) -> str:
    """The report as a page that needs no other file."""
    header, *table = rows(report)
    return render_page(
        _TEMPLATE,
        header=header,
        rows=table,
        facts=facts(report),
        size=_SIZE,
        edge=_EDGE,
        charts=[_chart(report, variant) for variant in report.variants],
        variants=report.variants,
    )


def _chart(report: ParityReport, variant: VariantParity) -> _Chart:
    """The chart of a variant, on at most `_MOST_TEXTS` texts, evenly spread."""
    reference, ours = report.reference_probabilities, variant.probabilities
    disagrees = reference.argmax(1) != ours.argmax(1)
    step = max(1, -(-len(reference) // _MOST_TEXTS))
    dots = [
        (_EDGE + x * _SIZE, _EDGE + (1 - y) * _SIZE, bool(disagrees[text]))
        for text in range(0, len(reference), step)
        for x, y in zip(reference[text], ours[text], strict=True)
    ]
    return _Chart(variant.title, dots)
