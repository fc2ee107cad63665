"""Fit a head to hidden states: logistic regression that starts from the trimmed head.

The penalty of the regression pulls the weights to zero, which would forget what the label words'
rows know. So the old head's own logits are features too, scaled up: a large feature needs a small
weight, which the penalty hardly touches. Where it is strong, what is left is the old head, rescaled
and shifted; where it is weak, every hidden state counts. Both are linear in the hidden states, so
the result is one weight and one bias.

What the rows know may be little: behind a prompt that the model does not answer, or behind its
first layers. So their logits are also tried with the scale of the other features, and
cross-validation chooses.

scikit-learn belongs to the extra `eval`, so it is imported where it is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimexport.bundle.written_head import Head
from trimexport.numerics import Floats, Places, softmax

STRENGTHS = tuple(float(strength) for strength in 10.0 ** np.arange(-5, 3))
"""C, the inverse of the penalty's strength, from the strongest penalty to the weakest."""

START_SCALES = (30.0, 1.0)
"""Standard deviations that the old head's logits are given, where hidden states have 1."""


@dataclass(frozen=True)
class Setting:
    """What cross-validation chooses: C, and the scale of the old head's logits."""

    strength: float
    start_scale: float


@dataclass(frozen=True)
class FittedHead:
    """A head, the C that it was fitted with, and the logits that cross-validation with `folds`
    gives the examples while they are held out, float64 [examples, labels]."""

    head: Head
    strength: float
    folds: int
    held_out: Floats


def fit_head(hidden: Floats, gold: Places, start: Head, fold: Places) -> FittedHead:
    """Fit a head by multinomial logistic regression with an L2 penalty. Its C is the one of
    `STRENGTHS`, and the old head's scale the one of `START_SCALES`, with the least cross-validated
    loss.

    Args:
        hidden: float64 [examples, hidden], what the head reads.
        gold: int64 [examples], places of labels, each of which has 2 examples at least.
        start: the old head, whose rows need not be the labels'.
        fold: int64 [examples], each one's fold; every label is in two at least.
    """
    setting, held_out = cross_validated(hidden, gold, start, fold)
    head = _fit(hidden, gold, start, setting)
    return FittedHead(head, setting.strength, int(fold.max()) + 1, held_out)


def cross_validated(
    hidden: Floats,
    gold: Places,
    start: Head,
    fold: Places,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[Setting, Floats]:
    """The setting with the least loss on what is held out, the first of equals, and the logits that
    it gives each example by the head that is fitted on the other folds, float64 [examples, labels].

    Args:
        hidden, gold, start, fold: as in `fit_head`.
        strengths: each C that is tried, with each scale.
    """
    settings = [Setting(strength, scale) for scale in START_SCALES for strength in strengths]
    held_out = [_held_out(hidden, gold, start, fold, setting) for setting in settings]
    best = int(np.argmin([_loss(logits, gold) for logits in held_out]))
    return settings[best], held_out[best]


def logits_of(head: Head, hidden: Floats) -> Floats:
    """The logits that a head gives hidden states [n, hidden]: float64 [n, labels]."""
    return np.asarray(hidden @ head.weight.T.astype(np.float64) + head.bias)


def _held_out(hidden: Floats, gold: Places, start: Head, fold: Places, setting: Setting) -> Floats:
    logits = np.empty((len(gold), int(gold.max()) + 1))
    for number in range(int(fold.max()) + 1):
        here = fold == number
        head = _fit(hidden[~here], gold[~here], start, setting)
        logits[here] = logits_of(head, hidden[here])
    return logits


def _loss(logits: Floats, gold: Places) -> float:
    """The mean cross-entropy in nats."""
    of_gold = softmax(logits)[np.arange(len(gold)), gold]
    return float(-np.log(np.maximum(of_gold, np.finfo(np.float64).tiny)).mean())


def _fit(hidden: Floats, gold: Places, start: Head, setting: Setting) -> Head:
    """Run one regression, and fold it into a head."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    own = logits_of(start, hidden)
    mean, spread = hidden.mean(axis=0), _spread(hidden)
    own_mean, own_spread = own.mean(axis=0), _spread(own) / setting.start_scale
    features = np.hstack([(hidden - mean) / spread, (own - own_mean) / own_spread])
    # Newton's method does not mind the scaled features, with which lbfgs takes ten times as long.
    regression = LogisticRegression(C=setting.strength, solver="newton-cg", max_iter=200, tol=1e-6)
    with warnings.catch_warnings():  # one that ends early is judged by its answers like the others
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(features, gold)
    slope, intercept = regression.coef_, regression.intercept_
    if len(slope) == 1:  # two labels: the odds of the second
        slope, intercept = np.vstack([-slope, slope]) / 2, np.hstack([-intercept, intercept]) / 2
    from_hidden, from_own = np.split(slope, [hidden.shape[1]], axis=1)
    from_hidden, from_own = from_hidden / spread, from_own / own_spread
    weight = from_hidden + from_own @ start.weight
    bias = intercept - from_hidden @ mean + from_own @ (start.bias - own_mean)
    return Head(weight.astype(np.float32), bias.astype(np.float32))


def _spread(values: Floats) -> Floats:
    """Standard deviations, 1 where a value is the same for all but for rounding."""
    spread = values.std(axis=0)
    return np.where(spread > 1e-7 * spread.max(), spread, 1.0)
