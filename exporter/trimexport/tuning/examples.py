"""Examples for fitting a head: what may be learned from, what may be scored on, and draws."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimexport.errors import SpecError
from trimexport.evaluation.data import Labelled, missing
from trimexport.prompt.few_shot import text_sha256
from trimexport.texts import short

Places = npt.NDArray[np.int64]

LEAST = 2
"""Of each label: one to learn from, while another is answered in cross-validation."""

FOLDS = 5

LEARNED = "reports/fit-examples.txt"
"""Where a bundle records what its head was fitted on."""


@dataclass(frozen=True)
class Material:
    """Examples, each once; texts to score on, none of them an example; and what the user should
    know of either."""

    examples: Labelled
    test: Labelled | None
    notes: tuple[str, ...]


def prepare(examples: Labelled, test: Labelled | None, labels: Sequence[str]) -> Material:
    """Leave out what would be counted twice.

    Raises:
        SpecError: a label with too few examples, or a test of examples alone.
    """
    pairs = list(zip(examples.texts, examples.gold.tolist(), strict=True))
    once = list(dict.fromkeys(pairs))
    kept = _select(once)
    _require_each(kept, labels)
    notes = []
    if repeated := len(pairs) - len(once):
        notes.append(f"{repeated:,} examples stand there before with the same label; each is one")
    if torn := len(once) - len(set(kept.texts)):
        twice = next(it for it in kept.texts if kept.texts.count(it) > 1)
        notes.append(
            f"{torn:,} examples have the text of another and a different label: "
            f"{short(twice)}; check the labels"
        )
    if test is None:
        return Material(kept, None, tuple(notes))
    known = set(kept.texts)
    rest = [it for it in zip(test.texts, test.gold.tolist(), strict=True) if it[0] not in known]
    if left := len(test.texts) - len(rest):
        notes.append(f"{left:,} texts of the test are examples too; they are not scored")
    if not rest:
        raise SpecError("every text of --test is an example too; give texts that are not")
    others = _select(rest)
    if absent := missing(others.gold, labels):
        notes.append(f"no text of the test has the label {', '.join(absent)}")
    return Material(kept, others, tuple(notes))


def _select(pairs: Sequence[tuple[str, int]]) -> Labelled:
    return Labelled(
        tuple(text for text, _ in pairs), np.array([gold for _, gold in pairs], np.int64)
    )


def _require_each(examples: Labelled, labels: Sequence[str]) -> None:
    found = counts(examples, labels)
    there = [label for label, count in found.items() if count]
    if len(there) == 1:
        raise SpecError(
            f"all {len(examples.texts):,} examples are {there[0]!r}; a head is fitted on examples "
            f"of every label: {', '.join(labels)}"
        )
    for label, count in found.items():
        if count < LEAST:
            raise SpecError(
                f"the label {label!r} has {count} examples, repeated ones left out; fitting needs "
                f"{LEAST} of each label at least, and a few dozen to be worth it"
            )


def counts(examples: Labelled, labels: Sequence[str]) -> dict[str, int]:
    """How many examples each label has."""
    return {label: int((examples.gold == place).sum()) for place, label in enumerate(labels)}


def require_shots(material: Material, labels: Sequence[str], shots: Sequence[int]) -> None:
    """Look whether draws of so many examples of each label can be made and scored.

    Raises:
        SpecError: a label has too few, or nothing would be left to score on.
    """
    for number in shots:
        if number < LEAST:
            raise SpecError(f"--shots {number}: a draw needs {LEAST} of each label at least")
    most = max(shots)
    found = counts(material.examples, labels)
    for label, count in found.items():
        if count < most:
            raise SpecError(
                f"--shots {most} needs as many examples of every label; {label!r} has {count:,}"
            )
    if material.test is None and len(material.examples.texts) == most * len(labels):
        raise SpecError(
            f"--shots {most} draws every example, so none is left to score on; give --test, or "
            "fewer shots"
        )


def draw(examples: Labelled, shots: int, seed: int) -> Places:
    """The places of `shots` examples of each label. It depends on their texts alone, not on their
    order or the labels', and a larger draw with the same seed has the smaller one in it."""
    return np.concatenate([order[:shots] for order in _orders(examples, f"draw {seed}")])


def folds(examples: Labelled) -> Places:
    """Which fold of cross-validation each example is in, with as many of each label in each."""
    orders = _orders(examples, "folds")
    number = min(FOLDS, *map(len, orders))
    found = np.empty(len(examples.texts), np.int64)
    for order in orders:
        found[order] = np.arange(len(order)) % number
    return found


def _orders(examples: Labelled, salt: str) -> list[Places]:
    """The places of each label's examples, in an order that is as good as random."""
    keys = [hashlib.sha256(f"{salt}\0{text}".encode()).digest() for text in examples.texts]
    return [
        np.array(sorted(np.flatnonzero(examples.gold == place), key=keys.__getitem__), np.int64)
        for place in np.unique(examples.gold)
    ]


def subset(examples: Labelled, places: Places) -> Labelled:
    """The examples at `places`."""
    return Labelled(tuple(examples.texts[place] for place in places), examples.gold[places])


def write_learned(texts: Sequence[str], before: Path, path: Path) -> None:
    """Record what a head was fitted on, and the one `before` it, from which it started: the
    SHA-256 of each text, a line each."""
    known = sorted({*map(text_sha256, texts), *_recorded(before)})
    path.write_text("".join(f"{it}\n" for it in known), encoding="ascii")


def learned_from(path: Path, texts: Collection[str]) -> frozenset[str]:
    """Those of `texts` that `write_learned` recorded in a file; none where there is no file."""
    known = _recorded(path)
    return frozenset(text for text in texts if text_sha256(text) in known)


def _recorded(path: Path) -> frozenset[str]:
    return frozenset(path.read_text(encoding="ascii").split() if path.is_file() else ())


def digest(examples: Labelled, labels: Sequence[str]) -> str:
    """SHA-256 of the examples, whatever their order."""
    lines = sorted(
        f"{labels[gold]}\0{text}\0\0"
        for text, gold in zip(examples.texts, examples.gold.tolist(), strict=True)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()
