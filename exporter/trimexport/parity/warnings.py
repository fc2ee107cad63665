"""What a parity report says of the prompt and of the texts, rather than of the variants."""

from __future__ import annotations

from collections import Counter

from trimexport.numerics import LOW_MASS
from trimexport.prompt.template import shell_prompt
from trimexport_runtime.bundle import INDEPENDENT, LOG_ODDS, LOGIT, SOFTMAX

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
            f"{gap.example}{worst_question(gap)}; {_remedy(gap)}"
        )
    if has_low_mass(report):
        assert report.mass is not None
        lines.append(
            f"warning: the labels hold only {report.mass.mean:.1%} of the model's probability; "
            "the model would rather say something else, so try a prompt that asks more plainly, "
            "or words it prefers with --verbalize"
        )
    if (doubt := doubts(report)) is not None:
        lines.append(f"warning: {doubt}")
    return lines


def worst_question(gap: TokenisationGap) -> str:
    """Which of several questions has the largest gap, in words behind a comma."""
    if not gap.by_question:
        return ""
    name = max(gap.by_question, key=gap.by_question.__getitem__)
    return f', most of them ({gap.by_question[name]:.1%}) with question "{name}"'


def has_low_mass(report: ParityReport) -> bool:
    """Whether the labels hold little of the vocabulary's probability, as if the prompt asked for
    something else. A single label's is low wherever the answer is no, which says nothing."""
    mass = report.mass
    return mass is not None and mass.mean < LOW_MASS and report.score.kind != LOGIT


def doubts(report: ParityReport) -> str | None:
    """Why the texts cannot judge the report's quantised variants, and what to do, in a line; None
    where they can, or where there are none."""
    if all(variant.tolerance.margin_error is None for variant in report.variants):
        return None
    reasons = []
    if has_low_mass(report):
        reasons.append("the labels hold too little of the model's probability")
    if (alike := _alike(report)) is not None:
        reasons.append(alike)
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


def _alike(report: ParityReport) -> str | None:
    """That the untrimmed model answers nearly all texts alike, or each question on its own; None
    where it does not."""
    if not report.score.sigmoid:
        return None
    kinds = max(len(report.questions), 1)
    answers = report.reference_probabilities.argmax(1).reshape(-1, kinds).T.tolist()
    commonest = [Counter(own).most_common(1)[0] for own in answers]
    if any(most <= ALIKE * len(answers[0]) for _, most in commonest):
        return None
    if report.questions:
        return "the untrimmed model answers every question with one label for nearly all texts"
    ((label, most),) = commonest
    return f"the untrimmed model answers {_option(report, label)!r} to {most:,} of {_asked(report)}"


def _option(report: ParityReport, place: int) -> str:
    """The name of an answer: a label, or that one is true or not."""
    if report.score.kind in (SOFTMAX, LOG_ODDS):
        return report.labels[place]
    name = report.labels[0] if report.score.kind == LOGIT else "a label"
    return f"not {name}" if place else name


def _asked(report: ParityReport) -> str:
    """How many answers there are: one for each text, or for each text and independent label."""
    if report.score.kind != INDEPENDENT:
        return f"{len(report.texts):,} texts"
    return f"{len(report.reference_probabilities):,} texts and labels"


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
