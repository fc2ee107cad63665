"""The answers that logits give to texts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .bundle import INDEPENDENT, Manifest, Score, Variant
from .errors import InputError, NoNumberError
from .questions import flat_name, slices
from .score import answers, probabilities
from .tokenize import Encoded

HALF = frozenset(("fp16", "tensorrt-fp16", "tensorrt-int8"))
"""The precisions that compute in float16, whose numbers end early."""


@dataclass(frozen=True)
class Prediction:
    """The answer to one text.

    `probabilities` are in the order of `Classifier.labels` and `probability` is that of `label`,
    the most probable; where the bundle's score has no sigmoid (a regression) they are the numbers
    themselves. `tokens` counts the text's own tokens that were read; `truncated` says that the text
    had more than the bundle's limit and was cut. `score` is the graph's logit where it gives one
    for each text, else None. `labels` are all that are true: of independent labels those whose
    probability is not below the threshold, of others `label` alone.

    `answers` are those of each question by its name, where the bundle has several. `label` and
    `labels` then name the label of each as `Classifier.labels` does, and `probability` is that of
    the least certain answer.
    """

    label: str
    probability: float
    probabilities: tuple[float, ...]
    truncated: bool
    tokens: int
    score: float | None = None
    labels: tuple[str, ...] = ()
    answers: Mapping[str, Prediction] = field(default_factory=dict)


def predictions(
    manifest: Manifest,
    variant: Variant,
    rows: Sequence[Encoded],
    logits: npt.NDArray[np.float32],
) -> list[Prediction | InputError]:
    """The answers that a variant's logits `[rows, outputs]` give to texts by the bundle's score, or
    a NoNumberError for a text some of whose logits are no finite numbers."""
    finite = finite_rows(logits)
    real = np.where(finite[:, None], logits, 0).astype(np.float64)
    if manifest.questions:
        made = _of_questions(manifest, rows, real)
    else:
        made = _of_labels(manifest.label_names, manifest.score, rows, real)
    pairs = zip(made, finite.tolist(), strict=True)
    return [prediction if answered else no_number(variant) for prediction, answered in pairs]


def _of_labels(
    labels: Sequence[str],
    score: Score,
    rows: Sequence[Encoded],
    logits: npt.NDArray[np.float64],
) -> list[Prediction]:
    """The answers to one question, whose logits are finite numbers `[rows, outputs]`."""
    shares = probabilities(logits, score)
    best = answers(shares, score).tolist()
    independent = score.kind == INDEPENDENT
    given = zip(rows, best, shares.tolist(), logits.tolist(), strict=True)
    return [
        Prediction(
            label=labels[place],
            probability=own[place],
            probabilities=tuple(own),
            truncated=row.truncated,
            tokens=len(row.ids),
            score=numbers[0] if score.is_single else None,
            labels=_true(labels, own, score) if independent else (labels[place],),
        )
        for row, place, own, numbers in given
    ]


def _of_questions(
    manifest: Manifest, rows: Sequence[Encoded], logits: npt.NDArray[np.float64]
) -> list[Prediction]:
    """The answers to a bundle's questions, whose logits stand side by side in the rows."""
    names = [question.name for question in manifest.questions]
    each = [
        _of_labels([label.name for label in it.labels], manifest.score, rows, logits[:, part])
        for it, part in zip(manifest.questions, slices(manifest), strict=True)
    ]
    return [_joined(dict(zip(names, own, strict=True))) for own in zip(*each, strict=True)]


def _joined(answers: Mapping[str, Prediction]) -> Prediction:
    """The answers to all questions about one text, as one answer."""
    labels = tuple(flat_name(name, answer.label) for name, answer in answers.items())
    each = tuple(answers.values())
    return Prediction(
        label="; ".join(labels),
        probability=min(answer.probability for answer in each),
        probabilities=tuple(itertools.chain.from_iterable(it.probabilities for it in each)),
        truncated=each[0].truncated,
        tokens=each[0].tokens,
        labels=labels,
        answers=answers,
    )


def _true(labels: Sequence[str], shares: Sequence[float], score: Score) -> tuple[str, ...]:
    """The independent labels whose probability is not below the threshold."""
    pairs = zip(labels, shares, strict=True)
    return tuple(label for label, share in pairs if share >= score.threshold)


def no_number(variant: Variant) -> NoNumberError:
    """What is to be said of a text to which a variant gives logits that are no finite numbers."""
    what = f"the variant {variant.name} gives it a logit that is no finite number"
    if variant.precision in HALF:
        return NoNumberError(
            f"{what}: float16 ends at 65504; use a variant in another precision, and `trimexport "
            "verify` to see which texts this one fails on"
        )
    return NoNumberError(
        f"{what}; see with `trimexport-run info --check` whether its files are whole, and if they "
        "are build the bundle again"
    )


def finite_rows(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Whether each row's logits are finite numbers, bool `[rows]`."""
    return np.asarray(np.isfinite(logits).all(axis=1))
