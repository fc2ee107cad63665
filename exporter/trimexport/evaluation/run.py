"""Run a bundle's variants on texts with right answers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimexport_runtime import Classifier

from .data import Labelled
from .metrics import Comparison, Point, Scores, abstention, score

TIMED = 100  # texts that are classified one by one
WORST = 10


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that was given with confidence; `index` is the text's place, from 0."""

    index: int
    text: str
    gold: str
    answer: str
    probability: float


@dataclass(frozen=True)
class Speed:
    """Milliseconds of a text alone (median and 95th percentile), and texts a second of them all."""

    median_ms: float
    p95_ms: float
    texts_per_second: float


@dataclass(frozen=True)
class Evaluation:
    """A variant's answers and what they are worth. `answers` are places of labels, `confidence`
    their probabilities, `tokens` the lengths of the texts, all `[texts]`."""

    variant: str
    provider: str
    scores: Scores
    abstention: Point | None
    speed: Speed
    truncated: int
    mistakes: tuple[Mistake, ...]
    answers: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    comparison: Comparison | None = None


def evaluate(
    bundle: Path,
    data: Labelled,
    variant: str | None,
    abstain_below: float | None,
    advance: Callable[[int], None],
) -> Evaluation:
    """Classify the texts with one variant, and judge the answers.

    Args:
        advance: called with the number of texts that were classified.

    Raises:
        BundleError, BackendError: the variant cannot be loaded or run.
        InputError: a text cannot be classified.
    """
    classifier = Classifier.load(bundle, variant=variant)
    began = time.perf_counter()
    found = []
    for prediction in classifier.classify_stream(data.texts):
        found.append(prediction)
        advance(1)
    seconds = time.perf_counter() - began
    probabilities = np.array([it.probabilities for it in found])
    confidence, answers = probabilities.max(axis=1), probabilities.argmax(axis=1)
    right = answers == data.gold
    return Evaluation(
        variant=classifier.variant.name,
        provider=classifier.provider,
        scores=score(data.gold, probabilities, classifier.labels),
        abstention=None if abstain_below is None else abstention(confidence, right, abstain_below),
        speed=_speed(classifier, data.texts, len(found) / seconds),
        truncated=sum(it.truncated for it in found),
        mistakes=_mistakes(data, classifier.labels, answers, confidence),
        answers=answers,
        confidence=confidence,
        tokens=np.array([it.tokens for it in found]),
    )


def _speed(classifier: Classifier, texts: Sequence[str], rate: float) -> Speed:
    step = max(1, len(texts) // TIMED)
    times = []
    for text in texts[::step][:TIMED]:
        began = time.perf_counter()
        classifier.classify([text])
        times.append(1000 * (time.perf_counter() - began))
    median, high = np.percentile(times, [50, 95]).tolist()
    return Speed(median, high, rate)


def _mistakes(
    data: Labelled,
    labels: Sequence[str],
    answers: npt.NDArray[np.int64],
    confidence: npt.NDArray[np.float64],
) -> tuple[Mistake, ...]:
    """The wrong answers that were given with most confidence."""
    wrong = np.flatnonzero(answers != data.gold)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:WORST]
    return tuple(
        Mistake(
            index=int(at),
            text=data.texts[at],
            gold=labels[data.gold[at]],
            answer=labels[answers[at]],
            probability=float(confidence[at]),
        )
        for at in worst
    )


def digest(data: Labelled) -> str:
    """What texts and right answers are recognised by."""
    found = hashlib.sha256()
    for text, gold in zip(data.texts, data.gold.tolist(), strict=True):
        found.update(f"{gold}\0{text}\0\0".encode())
    return found.hexdigest()


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """For a program: all of it, with an answer and its probability for each text."""
    value = asdict(evaluation)
    return value | {name: value[name].tolist() for name in ("answers", "confidence", "tokens")}
