"""Passes over the graph, one a file, and the order in which they run."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from .fold_constants import fold_constants
from .fold_transposes import fold_transposes
from .fuse_norms import fuse_norms
from .fuse_rotary import fuse_rotary
from .last_token import last_token
from .name_dimensions import name_dimensions
from .scale_queries import scale_queries
from .split_gemms import split_gemms
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


def optimise(model: ir.Model, *, every_token: bool = False) -> None:
    """Write a clean graph in fewer and larger operators, and without work that no answer needs.

    Args:
        every_token: the head reads all tokens' hidden states, not the last ones.

    Ensures: the same function up to the rounding of float32, in standard operators.
    """
    split_gemms(model)
    fuse_norms(model)
    fuse_rotary(model)
    common.RemoveUnusedNodesPass()(model)
    scale_queries(model)
    if not every_token:
        last_token(model)
    common.RemoveUnusedNodesPass()(model)
    common.TopologicalSortPass()(model)
