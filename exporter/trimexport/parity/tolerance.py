"""The limits that a variant has to keep, by its precision."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """The limits of a variant. Its largest logit difference must be below `max_logit_difference`,
    if there is one. Its margin error must be below `margin_error` and its agreement at least
    `agreement`, as far as the texts can tell: it is outside where the 95 % interval of the one or
    the other is."""

    max_logit_difference: float | None = None
    margin_error: float | None = None

    @property
    def agreement(self) -> float:
        """The least share of labels that stay as they are: all of them where no margin error is
        allowed. Elsewhere it follows from that: where margins are normal around 0, the hardest
        texts, an error of their size times `margin_error` changes the sign of one in pi / atan of
        it."""
        return 1.0 if self.margin_error is None else 1 - math.atan(self.margin_error) / math.pi


TOLERANCES = {
    "fp32": Tolerance(max_logit_difference=1e-3),
    # Twice what a good one has on a real model: 0.05 of int8, of tensorrt-int8 0.1, and 0.12 of
    # int4. Schemes that lose answers have 0.2 and more in int8. What is rounded to float16 has less
    # than 0.01 where each result is rounded too.
    "fp16": Tolerance(margin_error=0.02),
    "int8": Tolerance(margin_error=0.1),
    "int4": Tolerance(margin_error=0.25),
    "tensorrt-fp16": Tolerance(margin_error=0.02),
    "tensorrt-int8": Tolerance(margin_error=0.2),
}
"""A quantised variant is judged by margin error first: a few dozen texts measure it well, while a
label seldom changes and says by how much nothing was lost. By how far logits moved it is not
judged, for what they may move depends on how far apart the model puts labels."""
