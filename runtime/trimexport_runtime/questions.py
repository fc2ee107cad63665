"""A bundle of several questions, seen as one bundle for each of them.

The graph of such a bundle gives the logits of all questions in one row, one question after the
other. What is true of a bundle with one question (its labels, score, calibration, fitted head,
reference) is then true of each `view`, and its logits are those of `slices`.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from .manifest import Manifest

FIELD = "question"
"""The field of a prompt's template in whose place each question's text stands."""


def flat_name(question: str, label: str) -> str:
    """How a label is called among those of all questions."""
    return f"{question}: {label}"


def views(manifest: Manifest) -> tuple[Manifest, ...]:
    """A manifest for each question, as if it were the bundle's only one; of a bundle without
    questions itself alone."""
    if not manifest.questions:
        return (manifest,)
    return tuple(
        replace(
            manifest,
            labels=question.labels,
            prompt=replace(manifest.prompt, suffix_ids=question.suffix_ids),
            calibration=question.calibration,
            fit=question.fit,
            questions=(),
        )
        for question in manifest.questions
    )


def slices(manifest: Manifest) -> tuple[slice, ...]:
    """Where the logits of each of `views` are in the graph's row."""
    ends = [0]
    for view in views(manifest):
        ends.append(ends[-1] + view.outputs)
    return tuple(slice(start, end) for start, end in itertools.pairwise(ends))
