"""A parity report for people and for programs: text table, Markdown, JSON and HTML."""

from __future__ import annotations

import html as escaping
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from trimexport.prompt.template import shell_prompt
from trimexport.tables import columns

from .report import GAP_WARNING, MASS_WARNING, ParityReport, VariantParity

_HEADER = ("variant", "agreement", "max |Δlogit|", "mean |Δlogit|", "max |Δp|", "accuracy", "")


def rows(report: ParityReport) -> list[tuple[str, ...]]:
    """The parity table: a header, the reference, and a row per variant and backend."""
    reference = ("reference", "", "", "", "", _percent(report.reference_accuracy), "")
    absent = [(it.title, *[""] * (len(_HEADER) - 2), "NOT RUN") for it in report.not_run]
    return [_HEADER, reference, *(_row(variant) for variant in report.variants), *absent]


def table(report: ParityReport) -> str:
    """The report as text for a terminal."""
    return "\n".join([*columns(rows(report)), "", *facts(report)])


def markdown(report: ParityReport) -> str:
    """The report as Markdown."""
    lines = ["| " + " | ".join(line).replace("|Δ", "\\|Δ") + " |" for line in rows(report)]
    lines = [line.replace("logit|", "logit\\|").replace("Δp|", "Δp\\|") for line in lines]
    rule = "| " + " | ".join("---" for _ in _HEADER) + " |"
    return "\n".join([lines[0], rule, *lines[1:], "", *(f"- {fact}" for fact in facts(report))])


def facts(report: ParityReport) -> list[str]:
    """What is measured beside parity, a line each."""
    count, gap = len(report.texts), report.gap
    lines = [
        f"texts: {count}; standard deviation of a logit over them: {report.logit_deviation:.2f}",
        f"tokenisation gap: {gap.different} of {gap.compared} texts ({gap.share:.2%}) are "
        f"tokenised differently as one joined string, {gap.flips} answers change"
        + (" (above 1 %: see the docs on prompts)" if gap.share > GAP_WARNING else "")
        + (f"; {shell_prompt(gap.proposal)} avoids it" if gap.proposal is not None else ""),
    ]
    if (mass := report.mass) is not None:
        lines.append(
            f"label mass: {mass.mean:.1%} of the full vocabulary's probability on average, "
            f"{mass.least:.1%} at least"
            + " (low: the prompt does not ask for these labels)"
            * (mass.mean < MASS_WARNING)
        )
    for variant in report.variants:
        lines += [
            f"{variant.title} answers {item.variant!r} for {item.reference!r} on text "
            f"{item.index + 1} (margins {item.variant_margin:.4f} and {item.reference_margin:.4f})"
            for item in variant.disagreements[:20]
        ]
        hidden = len(variant.disagreements) - 20
        if hidden > 0:
            lines.append(f"{variant.title}: {hidden} more disagreements are in the JSON report")
    return [*lines, *(f"{it.title} was not run: {it.reason}" for it in report.not_run)]


def as_dict(report: ParityReport) -> dict[str, Any]:
    """The report for a program; probabilities of single texts are left out."""
    count = len(report.texts)
    return {
        "within_tolerance": report.within,
        "texts": count,
        "labels": list(report.labels),
        "logit_standard_deviation": report.logit_deviation,
        "reference": {"accuracy": report.reference_accuracy},
        "variants": [_variant_dict(variant) for variant in report.variants],
        "not_run": [asdict(item) for item in report.not_run],
        "tokenisation_gap": {
            "compared": report.gap.compared,
            "different": report.gap.different,
            "share": report.gap.share,
            "flips": report.gap.flips,
            "proposed_prompt": report.gap.proposal,
        },
        "label_mass": None if report.mass is None else asdict(report.mass),
    }


def _variant_dict(variant: VariantParity) -> dict[str, Any]:
    return {
        "name": variant.name,
        "backend": variant.backend,
        "within_tolerance": variant.within,
        "agreement": variant.agreement,
        "max_logit_difference": variant.max_logit_difference,
        "mean_logit_difference": variant.mean_logit_difference,
        "max_probability_difference": variant.max_probability_difference,
        "accuracy": variant.accuracy,
        "tolerance": asdict(variant.tolerance),
        "disagreements": [asdict(item) for item in variant.disagreements],
        "texts_outside_tolerance": list(variant.outside),
    }


def html(report: ParityReport) -> str:
    """The report as one HTML page without anything from elsewhere."""
    lines = rows(report)
    head = "".join(f"<th>{escaping.escape(cell)}</th>" for cell in lines[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escaping.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in lines[1:]
    )
    notes = "".join(f"<li>{escaping.escape(fact)}</li>" for fact in facts(report))
    charts = "".join(_scatter(report, variant) for variant in report.variants)
    flips = "".join(_flips(variant) for variant in report.variants)
    return _PAGE.format(head=head, body=body, notes=notes, charts=charts, flips=flips)


def _scatter(report: ParityReport, variant: VariantParity) -> str:
    """Reference probability (across) against the variant's (up), every label of every text."""
    size, edge = 360, 40
    reference, ours = report.reference_probabilities, variant.probabilities
    disagree = reference.argmax(1) != ours.argmax(1)
    dots = "".join(
        f'<circle cx="{edge + x * size:.1f}" cy="{edge + (1 - y) * size:.1f}" r="2.5" '
        f'class="{"bad" if disagree[text] else "good"}"/>'
        for text in _spread(len(reference))
        for x, y in zip(reference[text], ours[text], strict=True)
    )
    low, high = edge, edge + size
    return (
        f"<figure><figcaption>{escaping.escape(variant.title)}</figcaption>"
        f'<svg viewBox="0 0 {size + 2 * edge} {size + 2 * edge}" role="img" '
        f'aria-label="probabilities of {escaping.escape(variant.title)} against the reference">'
        f'<rect x="{low}" y="{low}" width="{size}" height="{size}" class="frame"/>'
        f'<line x1="{low}" y1="{high}" x2="{high}" y2="{low}" class="frame"/>{dots}'
        f'<text x="{(low + high) / 2}" y="{high + 28}">reference probability, 0 to 1</text>'
        f'<text transform="translate(16 {(low + high) / 2}) rotate(-90)">'
        f"{escaping.escape(variant.title)}</text></svg></figure>"
    )


def _spread(count: int, most: int = 2000) -> Sequence[int]:
    """At most `most` indices, evenly spread, so that the page stays small."""
    step = max(1, -(-count // most))
    return range(0, count, step)


def _flips(variant: VariantParity) -> str:
    if not variant.disagreements:
        return ""
    items = "".join(
        f"<tr><td>{item.index + 1}</td><td>{escaping.escape(item.text[:300])}</td>"
        f"<td>{escaping.escape(item.reference)} ({item.reference_margin:.4f})</td>"
        f"<td>{escaping.escape(item.variant)} ({item.variant_margin:.4f})</td></tr>"
        for item in variant.disagreements
    )
    return (
        f"<h2>Disagreements of {escaping.escape(variant.title)}</h2><table><tr><th>text</th>"
        f"<th></th><th>reference (margin)</th><th>variant (margin)</th></tr>{items}</table>"
    )


def _row(variant: VariantParity) -> tuple[str, ...]:
    return (
        variant.title,
        f"{variant.agreement:.2%}",
        f"{variant.max_logit_difference:.2e}",
        f"{variant.mean_logit_difference:.2e}",
        f"{variant.max_probability_difference:.2e}",
        _percent(variant.accuracy),
        "ok" if variant.within else "OUTSIDE TOLERANCE",
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Parity</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem }}
body {{ padding: 0 1rem }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ text-align: left; padding: .3rem .8rem; border-bottom: 1px solid #ccc }}
figure {{ margin: 1rem 0; max-width: 30rem }}
svg text {{ font-size: 13px; text-anchor: middle }}
.frame {{ fill: none; stroke: #999 }} .good {{ fill: #2563eb88 }} .bad {{ fill: #dc2626 }}
</style></head><body>
<h1>Parity with the untrimmed model</h1>
<table><tr>{head}</tr>{body}</table>
<ul>{notes}</ul>
{charts}
{flips}
</body></html>
"""
