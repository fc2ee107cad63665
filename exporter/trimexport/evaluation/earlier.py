"""Earlier evaluations, to compare with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trimexport.errors import SpecError
from trimexport.numerics import Places
from trimexport.texts import Texts

from .metrics import compare
from .run import Evaluation, digest


def read_earlier(path: Path, sample: Texts, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Read the variants of an evaluation of the same texts that `trimexport eval` wrote as JSON.

    Raises:
        SpecError: the file cannot be read, or is of other texts or labels.
    """
    try:
        value = json.loads(path.read_bytes())
        earlier, variants = str(value["digest"]), list(value["variants"])
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise SpecError(
            f"{path} is no evaluation; give the .json that `trimexport eval` wrote"
        ) from None
    if earlier != digest(sample, labels):
        raise SpecError(
            f"{path} is of other texts or labels, so the two cannot be compared; evaluate both on "
            "the same file"
        )
    return variants


def compared(evaluation: Evaluation, gold: Places, earlier: list[dict[str, Any]]) -> Evaluation:
    """The evaluation with its comparison to the earlier one's same variant, or else to its first.

    Args:
        gold: int64 `[texts]`, places of the right answers.
    """
    same = [variant for variant in earlier if variant["variant"] == evaluation.variant]
    before = np.array((same or earlier)[0]["answers"], np.int64) == gold
    return replace(evaluation, comparison=compare(before, evaluation.answers == gold))
