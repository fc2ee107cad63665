"""What a parity report says of the prompt and of the texts, rather than of the variants."""

from __future__ import annotations

from collections import Counter

from trimexport.numerics import LOW_MASS
from trimexport.prompt.template import shell_prompt

from .report import ParityReport, TokenisationGap

GAP_WARNING = 0.01
ALIKE = 0.9
"""Where more of the texts have one answer, agreement says little: a variant that always gives it
agrees."""
LEAST_MARGIN = 0.5
"""Where margins have a smaller standard deviation, in logits, the texts hardly differ to the
model."""


def warnings(report: ParityReport) -> list[str]:
    """The warnings about prompt and texts, a line each."""
    lines = []
    gap = report.gap
    if gap.share > GAP_WARNING:
        lines.append(
            f"warning: {gap.share:.1%} of the texts are tokenised differently when prompt and text "
            f"are one string ({gap.flips} of {gap.compared} answers change), for example "
            f"{gap.example}; {_remedy(gap)}"
        )
    if report.mass is not None and report.mass.mean < LOW_MASS:
        lines.append(
            f"warning: the labels hold only {report.mass.mean:.1%} of the model's probability; "
            "the model would rather say something else, so try a prompt that asks more plainly, "
            "or words it prefers with --verbalize"
        )
    if (doubt := doubts(report)) is not None:
        lines.append(f"warning: {doubt}")
    return lines


def doubts(report: ParityReport) -> str | None:
    """Why the texts cannot judge the report's quantised variants, and what to do, in a line; None
    where they can, or where there are none."""
    if all(variant.tolerance.margin_error is None for variant in report.variants):
        return None
    reasons = []
    answers = Counter(report.reference_probabilities.argmax(1).tolist())
    ((label, most),) = answers.most_common(1)
    if report.mass is not None and report.mass.mean < LOW_MASS:
        reasons.append("the labels hold too little of the model's probability")
    if most > ALIKE * len(report.texts):
        reasons.append(
            f"the untrimmed model answers {report.labels[label]!r} to {most:,} of "
            f"{len(report.texts):,} texts"
        )
    if report.margin_deviation < LEAST_MARGIN:
        reasons.append(
            f"the margin between its two best labels hardly varies (standard deviation "
            f"{report.margin_deviation:.2f} logits)"
        )
    if not reasons:
        return None
    return (
        f"these texts cannot judge the quantised variants: {', and '.join(reasons)}; give texts "
        "of the task with --texts, behind a prompt that the model answers"
    )


def _remedy(gap: TokenisationGap) -> str:
    """The part of a warning that says what to do about a gap."""
    if gap.proposal is not None:
        return f"this prompt avoids it: {shell_prompt(gap.proposal)}"
    if gap.fixed:
        return (
            "the prompt is the one that the model was trained with, so no other is proposed; where "
            "answers change, trim the texts"
        )
    if gap.at_prefix:
        return (
            "what stands before a text fuses with it; end it with a line break, or with a word or "
            "sign and one space, and trim the texts"
        )
    return (
        "no other white space behind the text avoids it; trim the texts, or begin what follows "
        "with a word of its own"
    )
