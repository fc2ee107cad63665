"""Compute at build time what does not depend on the input.

Requires: initializers bound.
Ensures: no node has only constant inputs, unless one of them is larger than `LIMIT` elements (a
weight, which stays where it streams from); casts to a type a value has already are gone.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import optimizer

# Above every norm and below every matrix: 1 + w of a norm is folded, a projection never read.
LIMIT_BYTES = 2**18


def fold_constants(model: ir.Model) -> None:
    """Apply the pass in place."""
    optimizer.fold_constants(model, input_size_limit=LIMIT_BYTES, output_size_limit=LIMIT_BYTES)
