"""An evaluation that was made before, to compare with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trimexport.errors import SpecError

from .data import Labelled
from .metrics import compare
from .run import Evaluation, digest


def read_earlier(path: Path, data: Labelled) -> list[dict[str, Any]]:
    """The variants of an evaluation that `trimexport eval` wrote as JSON, on the same texts.

    Raises:
        SpecError: it cannot be read, or is of other texts or labels.
    """
    try:
        found = json.loads(path.read_bytes())
        earlier, variants = str(found["digest"]), list(found["variants"])
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise SpecError(
            f"{path} is no evaluation; give the .json that `trimexport eval` wrote"
        ) from None
    if earlier != digest(data):
        raise SpecError(
            f"{path} is of other texts or labels, so the two cannot be compared; evaluate both on "
            "the same file"
        )
    return variants


def compared(evaluation: Evaluation, data: Labelled, earlier: list[dict[str, Any]]) -> Evaluation:
    """The evaluation with its comparison: with the same variant before, or else with the first."""
    same = [it for it in earlier if it["variant"] == evaluation.variant]
    before = np.array((same or earlier)[0]["answers"], np.int64) == data.gold
    return replace(evaluation, comparison=compare(before, evaluation.answers == data.gold))
