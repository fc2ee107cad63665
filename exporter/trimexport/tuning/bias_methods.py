"""Three ways to a bias per label. Logits in, bias out.

Each bias is centred: a constant added to all logits changes no probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimexport.errors import SpecError
from trimexport.numerics import Floats, softmax

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Texts that say nothing, as Zhao et al. (2021) chose them."""

ITERATIONS = 200
CLOSE = 1e-12


@dataclass(frozen=True)
class Matched:
    """The bias [labels] for a prior, and the most that a label's share differs from it."""

    bias: Floats
    residual: float


def even_out(logits: Floats) -> Floats:
    """The bias that evens out the labels' mean probabilities, float64 [labels]: -log of them.

    Over texts that say nothing it is contextual calibration (Zhao et al. 2021, "Calibrate Before
    Use", arXiv:2102.09690), over texts of the task batch calibration (Zhou et al. 2023,
    arXiv:2309.17249): both divide a text's probabilities by mean ones.

    Args:
        logits: float64 [n, labels].
    """
    return centred(-_log_mean_probabilities(logits))


def match_prior(logits: Floats, prior: Floats) -> Matched:
    """The bias with which the mean probabilities over the texts are `prior`.

    It is where the convex function mean(logsumexp(logits + bias)) - prior . bias is least: its
    gradient is the mean probabilities less the prior. Newton's method finds it, with steps that are
    halved while they lead uphill.

    Args:
        logits: float64 [n, labels].
        prior: float64 [labels], positive, its sum 1.
    """
    bias = centred(np.log(prior) - _log_mean_probabilities(logits))
    for _ in range(ITERATIONS):
        probabilities = softmax(logits + bias)
        mean = probabilities.mean(axis=0)
        gradient = mean - prior
        if np.abs(gradient).max() < CLOSE:
            break
        curvature = np.diag(mean) - probabilities.T @ probabilities / len(logits)
        newton = -np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        step = _downhill(logits, prior, bias, newton)
        if step is None:
            # Where every answer is sure the curvature vanishes; this step leads downhill always.
            step = np.log(prior) - _log_mean_probabilities(logits + bias)
        bias = centred(bias + step)
    residual = np.abs(softmax(logits + bias).mean(axis=0) - prior).max()
    return Matched(bias, float(residual))


def centred(bias: Floats) -> Floats:
    """The bias with mean zero."""
    return np.asarray(bias - bias.mean())


def _downhill(logits: Floats, prior: Floats, bias: Floats, step: Floats) -> Floats | None:
    """The step, halved until it leads downhill; None if 30 halvings do not get there."""
    here = _objective(logits, prior, bias)
    for _ in range(30):
        if _objective(logits, prior, bias + step) < here:
            return step
        step = step / 2
    return None


def _objective(logits: Floats, prior: Floats, bias: Floats) -> float:
    return float(_log_normaliser(logits + bias).mean() - prior @ bias)


def _log_mean_probabilities(logits: Floats) -> Floats:
    """Log of the mean probabilities [labels]; exact where a probability is too small to be one."""
    logs = logits - _log_normaliser(logits)[:, None]
    return np.asarray(_log_normaliser(logs.T) - np.log(len(logits)))


def _log_normaliser(logits: Floats) -> Floats:
    most = logits.max(axis=1)
    return np.asarray(most + np.log(np.exp(logits - most[:, None]).sum(axis=1)))


def check_prior(prior: Mapping[str, float], labels: Sequence[str]) -> Floats:
    """The shares of a prior in the labels' order, float64 [labels].

    Raises:
        SpecError: the prior names what is no label or leaves a label out, a share is not between 0
            and 1, or the sum is not 1.
    """
    names = ", ".join(labels)
    if unknown := [name for name in prior if name not in labels]:
        raise SpecError(
            f"the prior names {', '.join(map(repr, unknown))}, the bundle's labels are {names}; "
            "give each of these its share"
        )
    if absent := [label for label in labels if label not in prior]:
        raise SpecError(
            f"the prior says nothing of {', '.join(map(repr, absent))}; give every label its "
            f"share: {names}"
        )
    shares = np.array([prior[label] for label in labels], dtype=np.float64)
    for label, share in zip(labels, shares.tolist(), strict=True):
        if not 0 < share < 1:
            raise SpecError(
                f"the prior of {label!r} is {share:g}; give a share above 0 and below 1, for no "
                "bias makes a label certain or impossible"
            )
    if abs(shares.sum() - 1) > 1e-6:
        raise SpecError(f"the prior's shares sum to {shares.sum():.6g}; make them sum to 1")
    return np.asarray(shares / shares.sum())
