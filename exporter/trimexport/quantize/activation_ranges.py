"""How large activations become on texts, by which int8 is calibrated."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch

from trimexport.graph.classifier import split_prefix
from trimexport.model.layerwise import LayerwiseModel
from trimexport.planning import Plan, whole_ids
from trimexport.progress import Progress
from trimexport.texts import Texts

from .int8 import Factors
from .matrices import TRANSPOSED
from .smooth import Activations


def activation_ranges(
    planned: Plan,
    model: LayerwiseModel,
    calibration: Texts,
    progress: Progress,
    factors: Mapping[str, Factors] | None = None,
) -> Activations:
    """How large each matrix's inputs become on the calibration texts, at the positions that the
    graph computes: all but those of the compiled prefix. Where labels are read whole, each text
    has the beginning of a label behind it, one after the other.

    Args:
        factors: weight name -> what its inputs were smoothed and rotated by before they are looked
            at; those of the others are as the model makes them.
    """
    known = {name.removesuffix(TRANSPOSED): each for name, each in (factors or {}).items()}

    def change(name: str, inputs: torch.Tensor) -> torch.Tensor:
        return known[name].undo(inputs) if name in known else inputs

    compiled, _ = split_prefix(planned.prompt.prefix_ids, planned.prompt.suffix_ids)
    sequences = [ids for ids in whole_ids(planned, calibration.texts) if len(ids) > len(compiled)]
    if (trie := planned.trie) is not None:
        begun = itertools.cycle(trie.tokens_to(place) for place in trie.branches)
        sequences = [(*ids, *more) for ids, more in zip(sequences, begun, strict=False)]
    with progress.bar("calibrating", len(sequences)) as tick:
        return model.activations(sequences, len(compiled), tick, change)
