"""What tuning adds to the untrimmed model's answers, so that a bundle is compared with its like."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trimexport_runtime import Manifest


def bias_of(manifest: Manifest) -> npt.NDArray[np.float64]:
    """The bias that calibration added to the logits, float64 [labels]; zero where there is none."""
    found = manifest.calibration
    return np.zeros(len(manifest.labels)) if found is None else np.array(found.bias)
