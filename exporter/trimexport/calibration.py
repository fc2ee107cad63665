"""How large activations become on texts, by which int8 is calibrated."""

from __future__ import annotations

import json

from tokenizers import Tokenizer

from .graph import split_prefix
from .layerwise import LayerwiseModel
from .parity import Texts
from .planning import Plan
from .progress import Progress
from .quantize.smooth import Activations


def calibrate(
    planned: Plan, model: LayerwiseModel, calibration: Texts, progress: Progress
) -> Activations:
    """How large each matrix's inputs become on the calibration texts, at the positions that the
    graph computes: all but those of the compiled prefix."""
    tokenizer = Tokenizer.from_str(json.dumps(planned.text_tokenizer))
    prompt, limit = planned.prompt, planned.limit
    compiled, _ = split_prefix(prompt.prefix_ids, prompt.suffix_ids)
    sequences = []
    for text in calibration.texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        ids = ids[:limit] if planned.spec.truncate == "end" else ids[-limit:]
        sequences.append((*prompt.prefix_ids, *ids, *prompt.suffix_ids))
    sequences = [ids for ids in sequences if len(ids) > len(compiled)]
    with progress.bar("calibrating", len(sequences)) as tick:
        return model.activations(sequences, len(compiled), tick)
