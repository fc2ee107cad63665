"""Passes over the graph, one a file, and the order in which they run."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from .fold_constants import fold_constants
from .fold_transposes import fold_transposes
from .name_dimensions import name_dimensions
from .static_reshapes import static_reshapes


def clean(model: ir.Model) -> None:
    """Turn a freshly traced, bound graph into one without leftovers of the tracing.

    Ensures: the same function of the same inputs, no dead node or initializer, no two nodes that
    compute the same value.
    """
    fold_transposes(model)
    fold_constants(model)
    static_reshapes(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.IdentityEliminationPass()(model)
    common.DeduplicateInitializersPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    name_dimensions(model)
