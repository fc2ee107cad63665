"""Examples for fitting a head: what may be learned from, what may be scored on, and draws."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimexport.errors import SpecError
from trimexport.numerics import Places
from trimexport.records import spelling
from trimexport.texts import Texts, labels_without_texts, short
from trimexport_runtime.inputs import Input

LEAST = 2
"""The fewest examples of a label: one to learn from while the other is held out."""

FOLDS = 5
"""The most folds of a cross-validation."""


@dataclass(frozen=True)
class Material:
    """Examples without repetitions; texts to score on, none of them an example, or None; and notes
    for the user on both."""

    examples: Texts
    test: Texts | None
    notes: tuple[str, ...]


def prepare(examples: Texts, test: Texts | None, labels: Sequence[str]) -> Material:
    """Leave out what would be counted twice.

    Raises:
        SpecError: a label has too few examples, or every text of the test is an example.
    """
    pairs = _pairs(examples)
    once = list(dict.fromkeys(pairs))
    kept = _of_pairs(once, examples.source)
    _require_each(kept, labels)
    notes = []
    if repeated := len(pairs) - len(once):
        notes.append(f"{repeated:,} examples stand there before with the same label; each is one")
    if torn := len(once) - len(set(kept.texts)):
        twice = next(text for text in kept.texts if kept.texts.count(text) > 1)
        notes.append(
            f"{torn:,} examples have the text of another and a different label: "
            f"{short(twice)}; check the labels"
        )
    if test is None:
        return Material(kept, None, tuple(notes))
    known = set(kept.texts)
    rest = [(text, label) for text, label in _pairs(test) if text not in known]
    if left := len(test.texts) - len(rest):
        notes.append(f"{left:,} texts of the test are examples too; they are not scored")
    if not rest:
        raise SpecError("every text of --test is an example too; give texts that are not")
    others = _of_pairs(rest, test.source)
    if absent := labels_without_texts(others, labels):
        notes.append(f"no text of the test has the label {', '.join(absent)}")
    return Material(kept, others, tuple(notes))


def _pairs(data: Texts) -> list[tuple[Input, str]]:
    return list(zip(data.texts, data.gold or (), strict=True))


def _of_pairs(pairs: Sequence[tuple[Input, str]], source: str) -> Texts:
    return Texts(tuple(text for text, _ in pairs), tuple(label for _, label in pairs), source)


def _require_each(examples: Texts, labels: Sequence[str]) -> None:
    """Raise SpecError if a label has too few examples."""
    of_each = counts(examples, labels)
    there = [label for label, count in of_each.items() if count]
    if len(there) == 1:
        raise SpecError(
            f"all {len(examples.texts):,} examples are {there[0]!r}; a head is fitted on examples "
            f"of every label: {', '.join(labels)}"
        )
    for label, count in of_each.items():
        if count < LEAST:
            raise SpecError(
                f"the label {label!r} has {count} examples, repeated ones left out; fitting needs "
                f"{LEAST} of each label at least, and a few dozen to be worth it"
            )


def counts(examples: Texts, labels: Sequence[str]) -> dict[str, int]:
    """How many examples each label has."""
    count = Counter(examples.gold)
    return {label: count[label] for label in labels}


def require_shots(material: Material, labels: Sequence[str], shots: Sequence[int]) -> None:
    """Refuse numbers of shots of which no draw can be made and scored.

    Raises:
        SpecError: a label has too few examples, or no text would be left to score on.
    """
    for number in shots:
        if number < LEAST:
            raise SpecError(f"--shots {number}: a draw needs {LEAST} of each label at least")
    most = max(shots)
    for label, count in counts(material.examples, labels).items():
        if count < most:
            raise SpecError(
                f"--shots {most} needs as many examples of every label; {label!r} has {count:,}"
            )
    if material.test is None and len(material.examples.texts) == most * len(labels):
        raise SpecError(
            f"--shots {most} draws every example, so none is left to score on; give --test, or "
            "fewer shots"
        )


def drawn_places(examples: Texts, labels: Sequence[str], shots: int, seed: int) -> Places:
    """Draw `shots` examples of each label: their places among the examples. The choice depends on
    the texts alone, not on their order or the labels', and a larger draw with the same seed has the
    smaller one in it."""
    orders = _mixed_places(examples, labels, f"draw {seed}")
    return np.concatenate([order[:shots] for order in orders])


def fold_numbers(examples: Texts, labels: Sequence[str]) -> Places:
    """The fold of cross-validation that each example is in, int64 `[examples]`. Each label is
    spread over the folds evenly."""
    orders = _mixed_places(examples, labels, "folds")
    number = min(FOLDS, *map(len, orders))
    folds = np.empty(len(examples.texts), np.int64)
    for order in orders:
        folds[order] = np.arange(len(order)) % number
    return folds


def _mixed_places(examples: Texts, labels: Sequence[str], salt: str) -> list[Places]:
    """The places of each label's examples, in an order that is as good as random."""
    keys = [
        hashlib.sha256(f"{salt}\0{spelling(text)}".encode()).digest() for text in examples.texts
    ]
    gold = examples.places(labels)
    return [
        np.array(sorted(np.flatnonzero(gold == place), key=keys.__getitem__), np.int64)
        for place in np.unique(gold)
    ]


def subset(examples: Texts, places: Places) -> Texts:
    """The examples at `places`."""
    pairs = _pairs(examples)
    return _of_pairs([pairs[place] for place in places], examples.source)


def digest(examples: Texts) -> str:
    """SHA-256 of texts with their labels, whatever their order."""
    lines = sorted(f"{label}\0{spelling(text)}\0\0" for text, label in _pairs(examples))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
