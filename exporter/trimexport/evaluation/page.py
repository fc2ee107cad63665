"""Evaluations as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimexport.pages import render_page

from .plots import plots
from .render import facts
from .run import Evaluation

_TEMPLATE = Path(__file__).with_name("page.html.jinja")


def html_page(title: str, evaluations: Sequence[Evaluation], labels: Sequence[str]) -> str:
    """The evaluations of a bundle's variants as a page that needs no other file."""
    sections = [
        {
            "evaluation": evaluation,
            "facts": facts(evaluation),
            "plots": plots(evaluation, labels),
        }
        for evaluation in evaluations
    ]
    return render_page(_TEMPLATE, title=title, sections=sections)
