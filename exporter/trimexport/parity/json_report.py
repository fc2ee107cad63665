"""A parity report for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .report import ParityReport, VariantParity
from .warnings import doubts


def as_dict(report: ParityReport) -> dict[str, Any]:
    """The report as values that JSON has; probabilities of single texts are left out."""
    return {
        "within_tolerance": report.within,
        "texts": len(report.texts),
        "labels": list(report.labels),
        "score": asdict(report.score),
        "questions": list(report.questions),
        "logit_standard_deviation": report.logit_deviation,
        "margin_standard_deviation": report.margin_deviation,
        "cannot_judge": doubts(report),
        "reference": {"accuracy": report.reference_accuracy},
        "variants": [_variant_dict(variant) for variant in report.variants],
        "not_run": [asdict(row) for row in report.not_run],
        "tokenisation_gap": {
            "compared": report.gap.compared,
            "different": report.gap.different,
            "share": report.gap.share,
            "flips": report.gap.flips,
            "proposed_prompt": report.gap.proposal,
            "share_by_question": dict(report.gap.by_question),
        },
        "label_mass": None if report.mass is None else asdict(report.mass),
    }


def _variant_dict(variant: VariantParity) -> dict[str, Any]:
    margins = variant.margin_interval
    return {
        "name": variant.name,
        "backend": variant.backend,
        "within_tolerance": variant.within,
        "kept": variant.kept,
        "taken_over": None if variant.taken_over is None else asdict(variant.taken_over),
        "agreement": variant.agreement,
        "agreement_interval": list(variant.agreement_interval),
        "margin_error": variant.margin_error,
        "margin_error_interval": None if margins is None else list(margins),
        "max_logit_difference": variant.max_logit_difference,
        "mean_logit_difference": variant.mean_logit_difference,
        "max_probability_difference": variant.max_probability_difference,
        "accuracy": variant.accuracy,
        "tolerance": {
            "max_logit_difference": variant.tolerance.max_logit_difference,
            "agreement": variant.tolerance.agreement,
            "margin_error": variant.tolerance.margin_error,
        },
        "disagreements": [asdict(item) for item in variant.disagreements],
        "texts_outside_tolerance": list(variant.outside),
    }
