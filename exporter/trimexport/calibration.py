"""How large activations become on texts, by which int8 is calibrated."""

from __future__ import annotations

import json

from tokenizers import Tokenizer

from .layerwise import LayerwiseModel
from .parity import Texts
from .planning import Plan
from .progress import Progress
from .quantize.smooth import Activations


def calibrate(
    planned: Plan, model: LayerwiseModel, calibration: Texts | None, progress: Progress
) -> Activations:
    """How large each matrix's inputs become on the calibration texts; nothing without any."""
    if calibration is None:
        return {}
    tokenizer = Tokenizer.from_str(json.dumps(planned.text_tokenizer))
    prefix, suffix = planned.prompt.prefix_ids, planned.prompt.suffix_ids
    sequences = []
    for text in calibration.texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids[: planned.limit]
        sequences.append((*prefix, *ids, *suffix))
    sequences = [ids for ids in sequences if len(ids) > len(prefix)]
    with progress.bar("calibrating", len(sequences)) as tick:
        return model.activations(sequences, len(prefix), tick)
