"""How large activations become on texts, by which int8 is calibrated."""

from __future__ import annotations

from .graph import split_prefix
from .layerwise import LayerwiseModel
from .parity import Texts
from .planning import Plan, whole_ids
from .progress import Progress
from .quantize.smooth import Activations


def calibrate(
    planned: Plan, model: LayerwiseModel, calibration: Texts, progress: Progress
) -> Activations:
    """How large each matrix's inputs become on the calibration texts, at the positions that the
    graph computes: all but those of the compiled prefix."""
    compiled, _ = split_prefix(planned.prompt.prefix_ids, planned.prompt.suffix_ids)
    sequences = [ids for ids in whole_ids(planned, calibration.texts) if len(ids) > len(compiled)]
    with progress.bar("calibrating", len(sequences)) as tick:
        return model.activations(sequences, len(compiled), tick)
