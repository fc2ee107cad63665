"""How the logits of a bundle's graphs are read: as a softmax over the labels, or as scores."""

from __future__ import annotations

from dataclasses import dataclass

SOFTMAX, LOG_ODDS, LOGIT, INDEPENDENT = "softmax", "log-odds", "logit", "independent"
KINDS = (SOFTMAX, LOG_ODDS, LOGIT, INDEPENDENT)
"""How the logits of a graph may be read."""


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
