"""How the logits of a bundle's graphs are read: as a softmax over the labels, or as scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SOFTMAX, LOG_ODDS, LOGIT, INDEPENDENT = "softmax", "log-odds", "logit", "independent"
KINDS = (SOFTMAX, LOG_ODDS, LOGIT, INDEPENDENT)
"""How the logits of a graph may be read."""

_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """How the graph's logits are read.

    `softmax` is a logit for each label, of which one is true. `log-odds` is one logit, the first
    label's minus the second's; `logit` one, that of the only label; `independent` one for each
    label, of which any number may be true. Of all but `softmax` the logit that the graph returns is
    already the model's times `scale` plus `shift`, so that every client reads the same number.
    `sigmoid` says that the sigmoid of a logit is a probability; without it the number is the answer
    itself, as of a regression. From `threshold` on a probability makes a label true.
    """

    kind: str = SOFTMAX
    scale: float = 1.0
    shift: float = 0.0
    sigmoid: bool = True
    threshold: float = 0.5

    @property
    def is_single(self) -> bool:
        """Whether the graph returns one logit for each text, however many labels there are."""
        return self.kind in (LOG_ODDS, LOGIT)

    @property
    def phrase(self) -> str:
        """The score in words, for people: `log-odds, times 0.2, plus -6`."""
        changed = (
            f", times {self.scale:g}" * (self.scale != 1),
            f", plus {self.shift:g}" * (self.shift != 0),
        )
        threshold = f", true from {self.threshold:g} on" * (self.kind in (LOG_ODDS, INDEPENDENT))
        plain = ", without a sigmoid" * (not self.sigmoid)
        return self.kind + "".join(changed) + plain + threshold


def probabilities(logits: _Numbers, score: Score) -> _Numbers:
    """The labels' probabilities, float64 `[texts, labels]`, from the graph's logits, float64
    `[texts, outputs]`. Where the score has no sigmoid they are the logits themselves."""
    if score.kind == SOFTMAX:
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))
    if not score.sigmoid:
        return logits
    if score.kind == LOG_ODDS:
        return _sigmoid(np.concatenate([logits, -logits], axis=1))
    return _sigmoid(logits)


def answers(shares: _Numbers, score: Score) -> npt.NDArray[np.int64]:
    """The place of each text's label, int64 `[texts]`, from `probabilities`: the most probable one,
    but of log-odds the first from the threshold on, and the second below it."""
    if score.kind == LOG_ODDS:
        return np.where(shares[:, 0] >= score.threshold, 0, 1).astype(np.int64)
    return np.asarray(shares.argmax(axis=1))


def log_odds(logits: _Numbers, label: int, score: Score) -> _Numbers:
    """The log-odds of one label against all others, float64 `[texts]`, from the graph's logits.
    Where the score has no sigmoid they are the number that it gives."""
    if score.kind == LOG_ODDS:
        return -logits[:, 0] if label else logits[:, 0]
    if score.kind != SOFTMAX:
        return logits[:, label]
    others = np.delete(logits, label, axis=1)
    most = others.max(axis=1)
    rest = most + np.log(np.exp(others - most[:, None]).sum(axis=1))
    return np.asarray(logits[:, label] - rest)


def _sigmoid(logits: _Numbers) -> _Numbers:
    """1 / (1 + exp(-z)), without overflow on either side."""
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1.0, small) / (1 + small))
