"""The record of a parity report in its bundle: in the manifest, and as a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trimexport_runtime.atomic_file import atomic_file
from trimexport_runtime.backends import DEFAULT
from trimexport_runtime.bundle import Manifest, Parity

from .page import html_page
from .report import ParityReport


def with_parity(manifest: Manifest, report: ParityReport) -> Manifest:
    """The manifest with each variant's parity on the CPU, which of them are outside their tolerance
    on any backend, the label mass and the tokenisation gap."""
    measured = {
        item.name: Parity(
            texts=len(report.texts),
            max_logit_difference=item.max_logit_difference,
            mean_logit_difference=item.mean_logit_difference,
            max_probability_difference=item.max_probability_difference,
            agreement=item.agreement,
            tolerance=item.tolerance.max_logit_difference,
            agreement_tolerance=item.tolerance.agreement,
            margin_error=item.margin_error,
            margin_error_tolerance=item.tolerance.margin_error,
        )
        for item in report.variants
        if item.backend == DEFAULT
    }
    outside = {item.name for item in report.variants if not item.within}
    variants = tuple(
        replace(item, parity=measured[item.name], outside_tolerance=item.name in outside)
        for item in manifest.variants
    )
    return replace(
        manifest,
        variants=variants,
        label_mass=None if report.mass is None else report.mass.mean,
        tokenisation_gap=report.gap.share,
    )


def save_report(report: ParityReport, bundle: Path) -> Path:
    """Write `reports/parity.html`, outside the manifest's hashes, whole or not at all."""
    path = bundle / "reports" / "parity.html"
    path.parent.mkdir(exist_ok=True)
    with atomic_file(path) as stream:
        stream.write(html_page(report).encode())
    return path
