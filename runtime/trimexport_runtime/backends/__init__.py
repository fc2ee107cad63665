"""What runs a variant's graph. One backend per module; each is loaded only when it is used."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

CPU_PROVIDER = "CPUExecutionProvider"


class Backend(Protocol):
    """A loaded variant. `run` may be called from several threads at once."""

    def run(
        self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Logits of a batch.

        Args:
            input_ids: int64 `[batch, sequence]`, both at least 1.
            attention_mask: int64 `[batch, sequence]`, 1 at the texts' own tokens.

        Returns:
            float32 `[batch, labels]`.

        Raises:
            BackendError: the batch cannot be run here.
        """
        ...
