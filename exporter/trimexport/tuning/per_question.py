"""What is tuned of a bundle's questions, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trimexport.numerics import Floats
from trimexport_runtime import Manifest
from trimexport_runtime.questions import view_of, views


def questions_of(manifest: Manifest, question: str | None) -> list[str | None]:
    """The questions that are meant: the one that is named, or all; of a bundle without questions
    None alone.

    Raises:
        InputError: there is no such question.
    """
    if question is None and manifest.questions:
        return [each.name for each in manifest.questions]
    view_of(manifest, question)
    return [question]


def tuned(manifest: Manifest, question: str | None, **changes: Any) -> Manifest:
    """The manifest with other values in the fields of a question, or its own where there are no
    questions."""
    if question is None:
        return replace(manifest, **changes)
    questions = tuple(
        replace(each, **changes) if each.name == question else each for each in manifest.questions
    )
    return replace(manifest, questions=questions)


def bias_of_all(manifest: Manifest) -> Floats | None:
    """The bias behind the logits of all questions, one question after the other, float64
    [outputs], zeros for those without; None where none has one."""
    each = views(manifest)
    if all(view.calibration is None for view in each):
        return None
    return np.concatenate([_bias(view) for view in each])


def _bias(view: Manifest) -> Sequence[float] | Floats:
    calibration = view.calibration
    return np.zeros(view.outputs) if calibration is None else calibration.bias


def describe(manifest: Manifest) -> str:
    """The calibration in a line, that of each question which has one; empty if there is none."""
    names = [f"{question.name}: " for question in manifest.questions] or [""]
    each = zip(names, views(manifest), strict=True)
    return "; ".join(f"{name}{said}" for name, view in each if (said := _described(view)))


def _described(view: Manifest) -> str:
    calibration = view.calibration
    if calibration is None:
        return ""
    biases = ", ".join(
        f"{label} {bias:+.3f}"
        for label, bias in zip(view.label_names, calibration.bias, strict=True)
    )
    return f"{calibration.method} on {calibration.texts:,} texts, logits moved by {biases}"
