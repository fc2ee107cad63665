"""Compute at build time what does not depend on the input.

Requires: initializers bound.
Ensures: no node has only constant inputs, unless one of them has more than
`LIMIT_ELEMENTS` elements; casts to a type a value has already are gone.
"""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnxscript import optimizer

# `1 + w` of a norm is folded; a large model's matrices are not read. 1 MiB of float32.
LIMIT_ELEMENTS = 2**18


def fold_constants(model: ir.Model) -> None:
    """Apply the pass in place."""
    logger = logging.getLogger("onnxscript.optimizer")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of each node that it leaves as it is
    try:
        optimizer.fold_constants(
            model, input_size_limit=LIMIT_ELEMENTS, output_size_limit=LIMIT_ELEMENTS
        )
    finally:
        logger.setLevel(level)
