"""Labels, what was tuned of their logits, and the questions whose answers they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Label:
    """One answer and the vocabulary tokens that stand for it after the prompt.

    `token_ids` and `tokens` are each word's first. `sequences` are the token ids of whole words,
    where those are read, because some labels begin alike; elsewhere there are none.
    """

    name: str
    words: tuple[str, ...]
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    sequences: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Calibration:
    """A bias per label that `trimexport calibrate` added behind the logits of every variant.

    `method` is `content-free`, `batch` or `prior`, `texts` how many it was found on, `variant` what
    answered them. `bias` is float32, in the labels' order; `prior` the labels' shares that were
    asked for.
    """

    method: str
    texts: int
    bias: tuple[float, ...]
    prior: Mapping[str, float] | None
    variant: str


@dataclass(frozen=True)
class Fit:
    """How `trimexport fit` found the head that stands in the place of the label words' rows.

    `examples` counts them by label, `examples_sha256` is of their texts and labels. `shots` of each
    label were drawn with `seed`, where they are not None. `strength` is the regression's C, and
    `accuracy` what that got in cross-validation with `folds`. `variant` gave the hidden states.
    """

    examples: Mapping[str, int]
    examples_sha256: str
    shots: int | None
    seed: int | None
    strength: float
    accuracy: float
    folds: int
    variant: str


@dataclass(frozen=True)
class Question:
    """One of several questions that a bundle answers about a text in the same pass.

    `text` is what its prompt asks, `suffix_ids` are all tokens between the classified text and the
    answer. `labels` are its own, by names that may be another question's too; `calibration` and
    `fit` are of its logits alone.
    """

    name: str
    text: str
    suffix_ids: tuple[int, ...]
    labels: tuple[Label, ...]
    calibration: Calibration | None = None
    fit: Fit | None = None
