"""The words that an answer rests on: each is left out in turn, and the rest is classified.

This is occlusion (Zeiler and Fergus 2014, arXiv:1311.2901) over words. It costs as much as
classifying as many texts of that length as the text has words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .classifier import Classifier
from .errors import InputError
from .prediction import Prediction
from .score import answers, log_odds, probabilities

MOST_PARTS = 128
"""Of a text with more words, runs of words are left out together, which bounds the cost."""


@dataclass(frozen=True)
class Part:
    """A word, or a run of them: `text[start:end]`.

    `effect` is by how much it raises the log-odds of the answer's label, or the number that a score
    without a sigmoid gives: positive for a word that speaks for it. `probability` is that label's
    without the part, `label` the answer without it.
    """

    start: int
    end: int
    effect: float
    probability: float
    label: str


@dataclass(frozen=True)
class Explanation:
    """An answer, and what each part of the text does to it, in the order of the text."""

    text: str
    prediction: Prediction
    parts: tuple[Part, ...]


def explain(classifier: Classifier, text: str) -> Explanation:
    """Find out which words of a text move its label, and by how much.

    Raises:
        InputError: the text has no words, or cannot be classified.
        BackendError: the model cannot be run on it.
    """
    (whole,) = classifier.classify([text])
    spans = list(_spans(text))
    if not spans:
        raise InputError("the text has no words, so none can be left out; give a text with some")
    logits = classifier.logits([text, *(_without(text, start, end) for start, end in spans)])
    label = classifier.labels.index(whole.label)
    score = classifier.manifest.score
    numbers = logits.astype(np.float64)
    odds = log_odds(numbers, label, score)
    shares = probabilities(numbers, score)
    parts = (
        Part(
            start=start,
            end=end,
            effect=float(odds[0] - without),
            probability=float(own[label]),
            label=classifier.labels[place],
        )
        for (start, end), without, own, place in zip(
            spans, odds[1:], shares[1:], answers(shares[1:], score), strict=True
        )
    )
    return Explanation(text, whole, tuple(parts))


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """The spans of the words, or of runs of words if there are more than `MOST_PARTS`."""
    words = [match.span() for match in re.finditer(r"\S+", text)]
    run = max(1, -(-len(words) // MOST_PARTS))
    for at in range(0, len(words), run):
        yield words[at][0], words[min(at + run, len(words)) - 1][1]


def _without(text: str, start: int, end: int) -> str:
    """The text without a part and the white space behind it, or before it at the text's end."""
    behind = text[end:].lstrip()
    return text[:start] + behind if behind else text[:start].rstrip()
