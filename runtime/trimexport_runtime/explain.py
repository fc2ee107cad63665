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
from .inputs import Input, texts_of
from .prediction import Prediction
from .questions import view_of
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
    """An answer, and what each part of the text of one field does to it, in the text's order."""

    text: str
    field: str
    prediction: Prediction
    parts: tuple[Part, ...]


def explain(
    classifier: Classifier, given: Input, field: str | None = None, question: str | None = None
) -> Explanation:
    """Find out which words of a text move its label, and by how much.

    Args:
        field: of which field of the prompt words are left out; None is the one that is cut.
        question: the name of the question whose answer is explained, where there are several.

    Raises:
        InputError: the text has no words or cannot be classified, or there is no such field or
            question, or none of several questions is named.
        BackendError: the model cannot be run on it.
    """
    view, part = view_of(classifier.manifest, question)
    fields = classifier.manifest.prompt.places
    texts = dict(zip((it.name for it in fields), texts_of(fields, given), strict=True))
    field = classifier.manifest.cut_field if field is None else field
    if field not in texts:
        raise InputError(f"the prompt has no field {field!r}; it has: {', '.join(texts)}")
    (whole,), text = classifier.classify([texts]), texts[field]
    whole = whole if question is None else whole.answers[question]
    spans = list(_spans(text))
    if not spans:
        what = "the text" if len(fields) == 1 else f"the text of {field}"
        raise InputError(f"{what} has no words, so none can be left out; give a text with some")
    others = ({**texts, field: _without(text, start, end)} for start, end in spans)
    numbers = classifier.logits([texts, *others])[:, part].astype(np.float64)
    labels, score = view.label_names, view.score
    label = labels.index(whole.label)
    odds = log_odds(numbers, label, score)
    shares = probabilities(numbers, score)
    parts = (
        Part(
            start=start,
            end=end,
            effect=float(odds[0] - without),
            probability=float(own[label]),
            label=labels[place],
        )
        for (start, end), without, own, place in zip(
            spans, odds[1:], shares[1:], answers(shares[1:], score), strict=True
        )
    )
    return Explanation(text, field, whole, tuple(parts))


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
