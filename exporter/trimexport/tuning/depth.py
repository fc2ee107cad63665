"""How many of a model's layers a fitted head needs, judged on the examples alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trimexport.bundle.written_head import Head
from trimexport.numerics import Floats, Places

from .regression import cross_validated

STRENGTH = 0.01
"""C of the regressions that depths are compared by."""


@dataclass(frozen=True)
class Depth:
    """What cross-validation says of a head behind so many layers: the mean accuracy over the folds,
    and its standard error."""

    layers: int
    accuracy: float
    error: float


def depth_scores(
    states: Floats,
    gold: Places,
    start: Head,
    fold: Places,
    advance: Callable[[int], None] = lambda done: None,
) -> tuple[Depth, ...]:
    """Score every depth by cross-validation.

    Args:
        states: float32 [layers, examples, hidden], what a head reads behind each layer.
        gold, start, fold: as in `regression.fit_head`.
        advance: called with the number of depths done since the last call.
    """
    found = []
    for place, hidden in enumerate(states):
        _, logits = cross_validated(hidden.astype(np.float64), gold, start, fold, (STRENGTH,))
        right = logits.argmax(axis=1) == gold
        own = np.array([right[fold == number].mean() for number in range(int(fold.max()) + 1)])
        error = float(own.std(ddof=1) / np.sqrt(len(own)))
        found.append(Depth(place + 1, float(own.mean()), error))
        advance(1)
    return tuple(found)


def least_depth(scores: tuple[Depth, ...]) -> int:
    """The fewest layers whose accuracy is within one standard error of the best (the rule of
    Breiman et al. 1984). Of equally good ones the first is the best."""
    best = max(scores, key=lambda each: each.accuracy)
    enough = best.accuracy - best.error
    return next(each.layers for each in scores if each.accuracy >= enough)


def depth_lines(scores: tuple[Depth, ...], chosen: int) -> list[str]:
    """The scores as a table for a terminal."""
    return [
        "layers  accuracy  standard error",
        *(
            f"{it.layers:>6}  {it.accuracy:>8.2%}  {it.error:>14.2%}{' *' * (it.layers == chosen)}"
            for it in scores
        ),
    ]
