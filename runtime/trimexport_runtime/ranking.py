"""Documents ranked for a query: what a bundle's prompt has to have for it, and the scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .inputs import required
from .manifest import Manifest
from .prediction import Prediction
from .score import INDEPENDENT, log_odds

INSTRUCTION = "instruction"
"""The field with a default that an instruction replaces."""


def check_ranks(manifest: Manifest) -> None:
    """Refuse a bundle that cannot score a document for a query.

    Raises:
        InputError: it asks several questions, its prompt has not two fields without a default, or
            its labels are independent.
    """
    if manifest.questions:
        raise InputError(
            f"this bundle asks {len(manifest.questions)} questions of a text, so none of its "
            "answers is the score of a document; use a bundle with one score, or the answers by "
            "/classify"
        )
    names = required(manifest.prompt.places)
    if len(names) != 2:
        raise InputError(
            f"this bundle's prompt has to be given {_counted(names)}, and ranking takes two, the "
            "query and the document; use a bundle whose prompt has those"
        )
    if manifest.score.kind == INDEPENDENT:
        raise InputError(
            "this bundle's labels are independent of each other, so none of them is the score of a "
            "document; use a bundle with one score, or the labels by /classify"
        )


def pair_inputs(
    manifest: Manifest, pairs: Sequence[tuple[str, str]], instruction: str | None = None
) -> list[dict[str, str]]:
    """The inputs of a bundle for pairs of a query and a document.

    Args:
        instruction: what stands in the place of the default of the field `instruction`.

    Raises:
        InputError: as `check_ranks`, or the prompt has no such field.
    """
    check_ranks(manifest)
    fields = manifest.prompt.places
    query, document = required(fields)
    more = {} if instruction is None else {INSTRUCTION: instruction}
    if more and not any(it.name == INSTRUCTION and it.default is not None for it in fields):
        raise InputError(
            f"this bundle's prompt has no field {INSTRUCTION!r} with a default that an instruction "
            "could replace; leave the instruction out"
        )
    return [{query: asked, document: text, **more} for asked, text in pairs]


def score_of(prediction: Prediction) -> float:
    """The score of a document by the answer to its pair: the probability of the first label, or
    the number that the bundle answers with where that is no probability."""
    return prediction.probabilities[0]


def raw_scores(manifest: Manifest, logits: npt.NDArray[np.float32]) -> list[float]:
    """The scores before any sigmoid, of logits `[rows, outputs]`: the graph's only logit, or of
    several the log-odds of the first label against all others."""
    return [float(it) for it in log_odds(logits.astype(np.float64), 0, manifest.score)]


def ranked(scores: Sequence[float], top: int | None = None) -> list[int]:
    """The places of the `top` highest scores, the highest first; of equal ones in their order."""
    places = sorted(range(len(scores)), key=lambda place: -scores[place])
    return places[:top]


def _counted(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"one text ({names[0]!r})"
    return f"{len(names)} texts ({', '.join(map(repr, names))})"
