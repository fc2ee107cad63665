"""A parity report as text: a table for a terminal, or Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from trimexport.prompt.template import shell_prompt
from trimexport.tables import columns
from trimexport_runtime.bundle import SOFTMAX

from .report import LISTED, ParityReport, VariantParity
from .verdict import measured
from .warnings import GAP_WARNING, doubts, has_low_mass

_HEADER = (
    "variant",
    "agreement",
    "95 %",
    "margin error",
    "max |Δlogit|",
    "mean |Δlogit|",
    "max |Δp|",
    "accuracy",
    "",
)


def rows(report: ParityReport) -> list[tuple[str, ...]]:
    """The parity table: a header, the reference, and a row for each variant on each backend."""
    accuracy = _percent(report.reference_accuracy)
    reference = ("reference", *[""] * (len(_HEADER) - 3), accuracy, "")
    absent = [
        (row.title, *[""] * (len(_HEADER) - 2), "NO NUMBERS" if row.failed else "NOT RUN")
        for row in report.not_run
    ]
    return [_HEADER, reference, *(_row(variant) for variant in report.variants), *absent]


def table(report: ParityReport) -> str:
    """The report as text for a terminal."""
    return "\n".join([*columns(rows(report)), "", *facts(report)])


def markdown(report: ParityReport) -> str:
    """The report as Markdown."""
    header, *others = (_markdown_row(row) for row in rows(report))
    rule = _markdown_row(["---"] * len(_HEADER))
    return "\n".join([header, rule, *others, "", *(f"- {fact}" for fact in facts(report))])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def facts(report: ParityReport) -> list[str]:
    """The lines below the table: what is measured beside parity, the answers that changed, and why
    rows are missing."""
    count, gap = len(report.texts), report.gap
    plain = report.score.kind == SOFTMAX
    lines = [
        *([] if plain else [f"score: {report.score.phrase}; logits are compared behind it"]),
        *_questions(report),
        f"texts: {count}; standard deviation of a logit over them: {report.logit_deviation:.2f}, "
        f"of the margin: {report.margin_deviation:.2f}",
        f"tokenisation gap: {gap.different} of {gap.compared} "
        f"{'texts with questions' if report.questions else 'texts'} ({gap.share:.2%}) are "
        f"tokenised differently as one joined string, {gap.flips} answers change"
        + (" (above 1 %: see the docs on prompts)" if gap.share > GAP_WARNING else "")
        + (f"; {shell_prompt(gap.proposal)} avoids it" if gap.proposal is not None else ""),
    ]
    if (mass := report.mass) is not None:
        low = has_low_mass(report)
        lines.append(
            f"label mass: {mass.mean:.1%} of the full vocabulary's probability on average, "
            f"{mass.least:.1%} at least"
            + (" (low: the prompt does not ask for these labels)" if low else "")
        )
    if (doubt := doubts(report)) is not None:
        lines.append(doubt)
    for variant in report.variants:
        if (taken := variant.taken_over) is not None:
            lines.append(
                f"{variant.title} has {taken.phrase} with the GGUF file's own codes, scales and "
                "minima: these were not rounded again"
            )
        if variant.kept and not variant.within:
            lines.append(
                f"{variant.title} is outside its tolerance and was kept: {measured(variant)}"
            )
        lines += [
            f"{variant.title} answers {flip.variant!r} for {flip.reference!r} on text "
            f"{flip.index + 1} (margins {flip.variant_margin:.4f} and {flip.reference_margin:.4f})"
            for flip in variant.disagreements[:LISTED]
        ]
        hidden = len(variant.disagreements) - LISTED
        if hidden > 0:
            lines.append(f"{variant.title}: {hidden} more disagreements are in the JSON report")
    return [*lines, *(row.sentence for row in report.not_run)]


def _questions(report: ParityReport) -> list[str]:
    """The line that says how several questions are counted."""
    if not report.questions:
        return []
    return [
        f"{len(report.questions)} questions, which the untrimmed model was asked one by one: "
        "agreement and margin error are over all answers"
    ]


def _row(variant: VariantParity) -> tuple[str, ...]:
    low, high = variant.agreement_interval
    outside = "OUTSIDE, KEPT" if variant.kept else "OUTSIDE TOLERANCE"
    taken = variant.taken_over
    of_file = "" if taken is None else f"; {taken.matrices} of {taken.of} as in the GGUF file"
    return (
        variant.title,
        f"{variant.agreement:.2%}",
        f"{low:.2%} to {high:.2%}",
        _margin_error(variant.margin_error),
        f"{variant.max_logit_difference:.2e}",
        f"{variant.mean_logit_difference:.2e}",
        f"{variant.max_probability_difference:.2e}",
        _percent(variant.accuracy),
        ("ok" if variant.within else outside) + of_file,
    )


def _margin_error(value: float | None) -> str:
    if value is None:
        return "—"
    return "<0.001" if value < 5e-4 else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
