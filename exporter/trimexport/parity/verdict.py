"""The verdict on a parity report: which variants fail, and how that is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trimexport.errors import ParityError
from trimexport.records import short

from .report import LISTED, ParityReport, VariantParity
from .warnings import doubts


def failures(report: ParityReport, backends: Sequence[str] = ()) -> dict[str, list[str]]:
    """The variants that fail, and the lines that say how: those outside their tolerance that are
    not kept all the same, those whose logits are no numbers, and those that did not run on one of
    these backends."""
    found: dict[str, list[str]] = {}
    for variant in report.variants:
        if not variant.within and not variant.kept:
            found.setdefault(variant.name, []).extend(_verdict(report, variant))
    for row in report.not_run:
        if row.failed or row.backend in backends:
            found.setdefault(row.name, []).append(row.sentence)
    return found


def failure_lines(report: ParityReport, failed: Mapping[str, Sequence[str]]) -> list[str]:
    """What `failures` found, and a line on the texts where they cannot judge."""
    lines = [line for own in failed.values() for line in own]
    return [*lines, doubt] if (doubt := doubts(report)) is not None else lines


def require(report: ParityReport, backends: Sequence[str] = ()) -> None:
    """Raise ParityError, naming the texts, where `failures` finds any."""
    if failed := failures(report, backends):
        raise ParityError("\n".join(failure_lines(report, failed)))


def measured(variant: VariantParity) -> str:
    """What a variant's tolerance asks for, and what was measured of it."""
    limits = variant.tolerance
    low, high = variant.agreement_interval
    if limits.max_logit_difference is not None:
        return (
            f"largest logit difference {variant.max_logit_difference:.3g} "
            f"(allowed: under {limits.max_logit_difference:g}), "
            f"label agreement {variant.agreement:.2%} (allowed: {limits.agreement:.2%} or more)"
        )
    text = (
        f"label agreement {variant.agreement:.2%} (95 %: {low:.2%} to {high:.2%}; allowed: "
        f"{limits.agreement:.2%} or more), margin error "
    )
    if (margins := variant.margin_interval) is None:
        return f"{text}undefined, for the texts' margins hardly vary"
    low, high = margins
    return (
        f"{text}{variant.margin_error:.3f} (95 %: {low:.3f} to {high:.3f}; allowed: under "
        f"{limits.margin_error:g})"
    )


def _verdict(report: ParityReport, variant: VariantParity) -> list[str]:
    """The lines that say how a variant is outside its tolerance, and on which texts."""
    flips = [
        f"  text {flip.index + 1}: {flip.reference} (by {flip.reference_margin:.4f}) became "
        f"{flip.variant} (by {flip.variant_margin:.4f}): {short(flip.text)}"
        for flip in variant.disagreements
    ]
    outside = [
        f"  text {index + 1} is outside: {short(report.texts[index])}" for index in variant.outside
    ]
    return [
        f"variant {variant.title} is outside its tolerance: {measured(variant)}",
        *_first(flips, "answers that changed"),
        *_first(outside, "texts outside"),
    ]


def _first(lines: list[str], what: str) -> list[str]:
    """The first `LISTED` lines, and a line that counts the others."""
    hidden = len(lines) - LISTED
    return lines if hidden <= 0 else [*lines[:LISTED], f"  and {hidden:,} more {what}"]
