"""What tuning makes of the untrimmed model's answers, with which a tuned bundle is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimexport_runtime import Manifest


def bias_of(manifest: Manifest) -> npt.NDArray[np.float64]:
    """The bias that calibration added to the logits, float64 [labels]; zero where there is none."""
    found = manifest.calibration
    return np.zeros(len(manifest.labels)) if found is None else np.array(found.bias)


def fitted_logits(
    bundle: Path, manifest: Manifest, hidden: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """What the fitted head of a bundle makes of hidden states [n, hidden], float32 [n, labels]: it
    is the same in every graph."""
    from .graphs import load_graph  # here, for most bundles have none
    from .heads import read_head

    head = read_head(load_graph(bundle / manifest.variants[0].graph))
    return hidden @ head.weight.T + head.bias
