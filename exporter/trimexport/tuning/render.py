"""What calibrating and fitting come to, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from trimexport_runtime.questions import view_of

from .bias import Calibrated
from .fit import Fitted
from .trials import curve


def calibrated_lines(bundle: Path, calibrated: Calibrated) -> list[str]:
    """A calibration as a table for a terminal."""
    return [*_calibrated_table(calibrated), f"{bundle}: calibrated; --undo takes the bias away"]


def calibrated_questions_lines(bundle: Path, each: Sequence[Calibrated]) -> list[str]:
    """The calibrations of several questions, a table for each."""
    tables = [[f"{it.question}:", *_calibrated_table(it), ""] for it in each]
    return [*chain(*tables), f"{bundle}: calibrated; --undo takes the biases away"]


def _calibrated_table(calibrated: Calibrated) -> list[str]:
    calibration = calibrated.calibration
    rows = zip(
        calibrated.labels,
        calibration.bias,
        calibrated.before.tolist(),
        calibrated.after.tolist(),
        strict=True,
    )
    lines = [
        f"{'label':<24} {'bias':>9} {'mean probability before':>24} {'after':>9}",
        *(f"{name:<24} {bias:>+9.4f} {old:>24.2%} {new:>9.2%}" for name, bias, old, new in rows),
        "",
        f"{calibration.method} on {calibration.texts:,} texts with {calibration.variant}; "
        f"{calibrated.changed:,} of their answers change",
    ]
    if calibrated.residual is not None:
        lines.append(f"the prior is met to within {calibrated.residual:.1e}")
    return lines


def calibrated_as_dict(bundle: Path, calibrated: Calibrated) -> dict[str, Any]:
    """A calibration as JSON can hold it."""
    labels, calibration = calibrated.labels, calibrated.calibration
    return {
        "bundle": str(bundle),
        **({} if calibrated.question is None else {"question": calibrated.question}),
        "method": calibration.method,
        "texts": calibration.texts,
        "variant": calibration.variant,
        "bias": dict(zip(labels, calibration.bias, strict=True)),
        "prior": calibration.prior,
        "residual": calibrated.residual,
        "mean_probabilities_before": dict(zip(labels, calibrated.before.tolist(), strict=True)),
        "mean_probabilities_after": dict(zip(labels, calibrated.after.tolist(), strict=True)),
        "answers_changed": calibrated.changed,
        "engines_dropped": list(calibrated.engines),
    }


def fitted_lines(each: Sequence[Fitted]) -> list[str]:
    """Fits of one bundle as tables for a terminal."""
    output = each[0].directory
    tables = [[*_fitted_table(fitted), ""] for fitted in each]
    return [*chain(*tables), f"{output}: measure its parity with `trimexport verify {output}`"]


def _fitted_table(fitted: Fitted) -> list[str]:
    """One question's fit."""
    record, compared = view_of(fitted.manifest, fitted.question)[0].fit, fitted.compared
    assert record is not None, "a fitted bundle's manifest says so"
    learned = ", ".join(f"{label} {count:,}" for label, count in record.examples.items())
    left = "what the draw left" if record.shots else "held out in turn"
    scored = "the test" if fitted.on_test else left
    rows = {
        "zero-shot": compared.zero_shot,
        "batch-calibrated": compared.calibrated,
        "fitted": compared.fitted,
    }
    of = [] if fitted.question is None else [f"{fitted.question}:"]
    return [
        *of,
        f"{compared.fitted.texts:,} texts ({scored}), {compared.majority:.2%} of them of one label",
        "",
        f"{'':<18} {'accuracy':>9} {'macro F1':>9}",
        *(f"{name:<18} {row.accuracy:>9.2%} {row.macro_f1:>9.2%}" for name, row in rows.items()),
        "",
        f"fitted on {learned}; C {record.strength:g}, "
        f"{record.accuracy:.2%} right in {record.folds}-fold cross-validation",
        *_curve_lines(fitted),
    ]


def _curve_lines(fitted: Fitted) -> list[str]:
    """A line for each number of shots; none without draws."""
    row = "{:>6} {:>8} {:>8} {:>8} {:>8} {:>9} {:>10} {:>11}"
    shares = ("accuracy", "deviation", "least", "most", "macro_f1", "zero_shot", "calibrated")
    names = ("shots", "mean", "sd", "least", "most", "macro F1", "zero-shot", "calibrated")
    lines = []
    for point in curve(fitted.trials):
        values = (getattr(point, share) for share in shares)
        cells = ("-" if value is None else f"{value:.2%}" for value in values)
        lines.append(row.format(f"{point.shots:,}", *cells))
    return ["", row.format(*names), *lines] if lines else []
