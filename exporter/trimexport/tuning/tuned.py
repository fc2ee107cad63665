"""What tuning makes of the untrimmed model's answers, with which a tuned bundle is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimexport.model.layerwise import LayerwiseModel
from trimexport.reference import LabelReference, label_reference
from trimexport_runtime import Manifest

from .graphs import load_graph
from .heads import read_head


def tuned_reference(
    bundle: Path,
    model: LayerwiseModel,
    manifest: Manifest,
    prompts: Sequence[tuple[int, ...]],
    tick: Callable[[int], None] = lambda done: None,
) -> LabelReference:
    """`label_reference`, with what the bundle was given since it was built: a bias, or another
    head, which reads the untrimmed model's last hidden states and has no label mass.

    Args:
        tick: called with the number of sequences done since the last call: as many as there are
            prompts, times `sequences_per_prompt`.
    """
    bias = bias_of(manifest)
    if manifest.fit is None:
        found = label_reference(model, manifest, prompts, tick)
        moved = found.trimmed + bias.astype(np.float32)
        return LabelReference(found.logits + bias, found.mass, moved)
    hidden = model.hidden_states(prompts, tick)
    logits = fitted_logits(bundle, manifest, hidden.numpy()) + bias.astype(np.float32)
    return LabelReference(logits.astype(np.float64), None, logits)


def bias_of(manifest: Manifest) -> npt.NDArray[np.float64]:
    """The bias that calibration added to the logits, float64 [labels]; zero where there is none."""
    found = manifest.calibration
    return np.zeros(len(manifest.labels)) if found is None else np.array(found.bias)


def fitted_logits(
    bundle: Path, manifest: Manifest, hidden: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """What the fitted head of a bundle makes of hidden states [n, hidden], float32 [n, labels]: it
    is the same in every graph."""
    head = read_head(load_graph(bundle / manifest.variants[0].graph))
    return hidden @ head.weight.T + head.bias
