"""Put a task in place of the inputs that a backbone's graph takes it by.

Requires: a written backbone graph and an array for each of its inputs but the text's.
Ensures: the graph takes the text's tokens alone, and returns what it would with those inputs. What
depends on the task alone is computed, and sums with nothing are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from trimexport.graph.nodes import initializer, input_of

from .fold_constants import fold_constants


def place_task(model: ir.Model, task: Mapping[str, npt.NDArray[Any]]) -> None:
    """Apply the pass in place."""
    graph = model.graph
    for given in [value for value in graph.inputs if value.name in task]:
        array = task[str(given.name)]
        graph.inputs.remove(given)
        if _is_nothing(array):
            for use in list(given.uses()):
                if use.node.op_type == "Add" and use.node.outputs[0] not in graph.outputs:
                    other = input_of(use.node, 1 - use.idx)
                    use.node.outputs[0].replace_all_uses_with(other)
        given.replace_all_uses_with(initializer(graph, ir.tensor(array, name=given.name)))
    fold_constants(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.IdentityEliminationPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.TopologicalSortPass()(model)


def _is_nothing(array: npt.NDArray[Any]) -> bool:
    """Whether it changes no sum: a float other than -0.0 plus 0.0 is itself."""
    return array.dtype == np.float32 and not array.any()
