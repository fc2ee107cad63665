"""Give the graph's dimensions their names in place of the tracer's symbols.

Requires: inputs of shape [s1, s2], as the tracer named them.
Ensures: the inputs are [batch, sequence], and every other shape says the same in those names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx_ir as ir

from trimexport.graph.nodes import shape_of, token_ids_of

_SYMBOL = re.compile(r"[A-Za-z_]\w*")
NAMES = ("batch", "sequence")


def name_dimensions(model: ir.Model) -> None:
    """Apply the pass in place."""
    symbols = shape_of(token_ids_of(model.graph))
    names = {str(symbol): name for symbol, name in zip(symbols, NAMES, strict=True)}
    for value in _values(model.graph):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, names) for dim in value.shape])


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _renamed(dim: int | ir.SymbolicDim, names: dict[str, str]) -> int | str:
    if isinstance(dim, int):
        return dim
    return _SYMBOL.sub(lambda match: names.get(match.group(), match.group()), str(dim.value))
