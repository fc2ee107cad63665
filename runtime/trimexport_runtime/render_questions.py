"""How the answers to several questions are written: in JSON, in cells, in columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from .bundle import Manifest
from .prediction import Prediction
from .visible import visible


def answers_dict(prediction: Prediction, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """The answers for JSON, by the questions' names: the label, its probability, and those of all
    of the question's labels."""
    value = {}
    for question in manifest.questions:
        answer = prediction.answers[question.name]
        names = (label.name for label in question.labels)
        value[question.name] = {
            "label": answer.label,
            "probability": answer.probability,
            "probabilities": dict(zip(names, answer.probabilities, strict=True)),
        }
    return value


def answers_cells(prediction: Prediction) -> list[str]:
    """A cell for each question: `toxic: yes 93.1%`."""
    return [
        f"{visible(name)}: {visible(answer.label)} {answer.probability:.1%}"
        for name, answer in prediction.answers.items()
    ]


def question_keys(
    questions: Sequence[str], taken: Collection[str], suffix: str
) -> list[tuple[str, str]]:
    """Two names of columns or tensors for each question: its own, and that with the suffix behind
    it. Before a name that would be there twice stands `question_`."""
    used, keys = {*taken}, []
    for question in questions:
        others = {other for other in questions if other != question}
        key = question
        while {key, key + suffix} & (used | others):
            key = f"question_{key}"
        used |= {key, key + suffix}
        keys.append((key, key + suffix))
    return keys


def question_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """Rows on the questions for `info`: the name of each, what it asks, and its labels with their
    words."""
    rows = []
    for question in manifest.questions:
        labels = (
            ": ".join(filter(None, (visible(label.name), ", ".join(label.words))))
            for label in question.labels
        )
        rows.append(("question", f'{visible(question.name)}: "{visible(question.text)}"'))
        rows.append(("", "; ".join(labels)))
    return rows
