"""A bundle of several questions, seen as one bundle for each of them.

The graph of such a bundle gives the logits of all questions in one row, one question after the
other. What is true of a bundle with one question (its labels, score, calibration, fitted head,
reference) is then true of each `view`, and its logits are those of `slices`.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from .errors import InputError
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
    if not manifest.questions:
        return (slice(0, manifest.outputs),)
    counts = (len(question.labels) for question in manifest.questions)
    ends = itertools.accumulate(counts, initial=0)
    return tuple(slice(start, end) for start, end in itertools.pairwise(ends))


def view_of(manifest: Manifest, name: str | None) -> tuple[Manifest, slice]:
    """The view of the question called `name` and its slice; of a bundle without questions, where
    no name is to be given, itself and all of its logits.

    Raises:
        InputError: there is no such question, or one has to be named.
    """
    place = place_of(manifest, name)
    return views(manifest)[place], slices(manifest)[place]


def place_of(manifest: Manifest, name: str | None) -> int:
    """The place among `views` of that of the question called `name`. Raises as `view_of`."""
    names = [question.name for question in manifest.questions]
    if not names and name is None:
        return 0
    if not names:
        raise InputError(
            f"the bundle asks one question, which has no name; leave the question {name!r} out"
        )
    if name is None:
        raise InputError(f"the bundle asks several questions; name one of {', '.join(names)}")
    if name not in names:
        raise InputError(f"the bundle has no question {name!r}; it has: {', '.join(names)}")
    return names.index(name)
