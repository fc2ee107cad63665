"""A variant's answers to texts with labels, and what they are worth."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimexport.numerics import Floats, Places
from trimexport.records import one_line, spelling
from trimexport.texts import Texts
from trimexport_runtime import Classifier, Manifest, Prediction
from trimexport_runtime.inputs import Input

from .metrics import Comparison, Point, Scores, abstention, score

ALL = "all"
TIMED = 100
"""How many texts are classified one by one, to time them."""

WORST = 10
"""How many mistakes are kept."""


@dataclass(frozen=True)
class Mistake:
    """A wrong answer and its probability; `index` is the text's place, from 0."""

    index: int
    text: str
    gold: str
    answer: str
    probability: float


@dataclass(frozen=True)
class Speed:
    """Milliseconds that one text takes alone (median and 95th percentile), and how many texts are
    classified a second when all are given at once."""

    median_ms: float
    p95_ms: float
    texts_per_second: float


@dataclass(frozen=True)
class Evaluation:
    """The answers of one variant and what they are worth. `answers` are places of labels,
    `confidence` their probabilities, `tokens` the lengths of the texts, all `[texts]`; `truncated`
    counts the texts that were cut. `comparison` is with an earlier evaluation."""

    variant: str
    provider: str
    scores: Scores
    abstention: Point | None
    speed: Speed
    truncated: int
    mistakes: tuple[Mistake, ...]
    answers: Places
    confidence: Floats
    tokens: npt.NDArray[np.int64]
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Evaluated:
    """The evaluations of a bundle's variants on the same texts. `data` is what the texts are
    called, `digest` what they and their labels are recognised by, `notes` what makes them a poor
    measure."""

    bundle: Path
    data: str
    digest: str
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    variants: tuple[Evaluation, ...]


def evaluate_variant(
    bundle: Path,
    sample: Texts,
    variant: str | None,
    abstain_below: float | None,
    advance: Callable[[int], None],
) -> Evaluation:
    """Classify texts with one variant, and judge the answers.

    Args:
        sample: texts with labels of the bundle.
        variant: its name, or None for the fastest.
        advance: called with the number of texts that were classified.

    Raises:
        BundleError, BackendError: the variant cannot be loaded or run.
        InputError: a text cannot be classified.
    """
    classifier = Classifier.load(bundle, variant=variant)
    gold = sample.places(classifier.labels)
    began = time.perf_counter()
    predictions = classified(classifier, sample.texts, advance)
    seconds = time.perf_counter() - began
    probabilities = np.array([prediction.probabilities for prediction in predictions])
    confidence, answers = probabilities.max(axis=1), probabilities.argmax(axis=1)
    right = answers == gold
    return Evaluation(
        variant=classifier.variant.name,
        provider=classifier.provider,
        scores=score(gold, probabilities, classifier.labels),
        abstention=None if abstain_below is None else abstention(confidence, right, abstain_below),
        speed=_speed(classifier, sample.texts, len(predictions) / seconds),
        truncated=sum(prediction.truncated for prediction in predictions),
        mistakes=_mistakes(sample.texts, gold, answers, confidence, classifier.labels),
        answers=answers,
        confidence=confidence,
        tokens=np.array([prediction.tokens for prediction in predictions]),
    )


def classified(
    classifier: Classifier, texts: Sequence[Input], advance: Callable[[int], None]
) -> list[Prediction]:
    """The answers to texts; `advance` is called with the number of those since the last call."""
    predictions = []
    for prediction in classifier.classify_stream(texts):
        predictions.append(prediction)
        advance(1)
    return predictions


def variant_names(asked: Sequence[str], manifest: Manifest) -> Sequence[str | None]:
    """The names of the variants to run, None for the fastest; `("all",)` asks for every one."""
    if tuple(asked) == (ALL,):
        return [variant.name for variant in manifest.variants]
    return asked or [None]


def _speed(classifier: Classifier, texts: Sequence[Input], texts_per_second: float) -> Speed:
    step = max(1, len(texts) // TIMED)
    times = []
    for text in texts[::step][:TIMED]:
        began = time.perf_counter()
        classifier.classify([text])
        times.append(1000 * (time.perf_counter() - began))
    median, high = np.percentile(times, [50, 95]).tolist()
    return Speed(median, high, texts_per_second)


def _mistakes(
    texts: Sequence[Input], gold: Places, answers: Places, confidence: Floats, labels: Sequence[str]
) -> tuple[Mistake, ...]:
    """The wrong answers that were given with most confidence."""
    wrong = np.flatnonzero(answers != gold)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:WORST]
    return tuple(
        Mistake(
            index=int(at),
            text=one_line(texts[at]),
            gold=labels[gold[at]],
            answer=labels[answers[at]],
            probability=float(confidence[at]),
        )
        for at in worst
    )


def digest(sample: Texts, labels: Sequence[str]) -> str:
    """SHA-256 of texts and the places of their labels, by which a later evaluation knows them."""
    hashed = hashlib.sha256()
    for text, gold in zip(sample.texts, sample.places(labels).tolist(), strict=True):
        hashed.update(f"{gold}\0{spelling(text)}\0\0".encode())
    return hashed.hexdigest()
