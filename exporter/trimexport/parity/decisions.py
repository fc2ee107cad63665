"""What a bundle decides by its logits, so that every score is compared by the same numbers.

A softmax over labels decides once for each text. A single logit z decides between what it is high
for and what it is low for, as the two logits (z, 0) do; independent labels decide so once for each
text and label, text by text. Several questions decide once each for every text; where one has fewer
labels than another, its row is filled with options that are never taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimexport.numerics import Floats
from trimexport_runtime import Manifest
from trimexport_runtime.bundle import LOG_ODDS, SOFTMAX
from trimexport_runtime.questions import slices

_NEVER = -1e9  # the logit of an option that a question does not have


@dataclass(frozen=True)
class Decisions:
    """The decisions on a text.

    `names` has the options of each: for a softmax or log-odds once the labels, for several
    questions those of each, else for each output the label and `not LABEL`. `two_way` says that a
    logit decides between two options.
    """

    names: tuple[tuple[str, ...], ...]
    two_way: bool

    @property
    def kinds(self) -> int:
        """How many questions there are, whose margins are of different sizes."""
        return 1 if self.two_way else len(self.names)

    def of(self, logits: Floats) -> Floats:
        """The logits of every decision, float64 [texts * decisions, options], from a graph's,
        float64 [texts, outputs]."""
        if not self.two_way:
            return logits if len(self.names) == 1 else self._by_question(logits)
        return np.stack([logits.ravel(), np.zeros(logits.size)], axis=1)

    def _by_question(self, logits: Floats) -> Floats:
        """The logits of every question a row of its own, of as many options as the most has."""
        ends = np.cumsum([len(names) for names in self.names])
        most = max(map(len, self.names))
        parts = (
            np.pad(own, ((0, 0), (0, most - own.shape[1])), constant_values=_NEVER)
            for own in np.split(logits, ends[:-1], axis=1)
        )
        return np.stack(list(parts), axis=1).reshape(-1, most)

    def place(self, row: int) -> tuple[int, tuple[str, ...]]:
        """The text that a row of `of` belongs to, and the names of its options."""
        text, decision = divmod(row, len(self.names))
        return text, self.names[decision]

    def some_differ(self, first: Floats, second: Floats) -> Floats:
        """On which texts a decision by one graph's logits is another than by the other's, both
        float64 [texts, outputs]; bool [texts]."""
        differ = self.of(first).argmax(1) != self.of(second).argmax(1)
        return np.asarray(differ.reshape(len(first), -1).any(axis=1))


def decisions_of(manifest: Manifest) -> Decisions:
    """The decisions of a bundle."""
    kind, labels = manifest.score.kind, manifest.label_names
    if manifest.questions:
        return Decisions(tuple(labels[own] for own in slices(manifest)), False)
    if kind in (SOFTMAX, LOG_ODDS):
        return Decisions((labels,), kind == LOG_ODDS)
    return Decisions(tuple(_against_all_else(labels)), True)


def _against_all_else(labels: Sequence[str]) -> list[tuple[str, str]]:
    return [(label, f"not {label}") for label in labels]
