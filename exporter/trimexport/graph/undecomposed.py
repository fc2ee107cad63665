"""Programs that are translated to ONNX as they are.

`torch.onnx.export` decomposes every program first, for the sake of operators that have no
translation. That runs the whole model twice more under symbolic shapes: half of the time of a
trace. Of such operators the models here have conversions alone, which are another operator by
another name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.onnx import OnnxExporterError, ONNXProgram

aten = torch.ops.aten
CONVERSIONS = (aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten.to.other)


def to_onnx(program: ExportedProgram, **options: Any) -> ONNXProgram | None:
    """`torch.onnx.export` of a program, which is decomposed only if something in it has to be."""
    decompose: Callable[..., ExportedProgram] = program.run_decompositions
    skipped: list[ExportedProgram] = []

    def run_decompositions(table: Collection[Any], **settings: Any) -> ExportedProgram:
        if skipped or not _can_stay(program, table):
            return decompose(table, **settings)
        skipped.append(program)
        _rename_conversions(program)
        return program

    program.run_decompositions = run_decompositions
    try:
        return torch.onnx.export(program, **options)
    except OnnxExporterError:
        if not skipped:
            raise
        return torch.onnx.export(program, **options)  # now decomposed


def _can_stay(program: ExportedProgram, table: Collection[Any]) -> bool:
    """Whether no operator of a program is in the table of decompositions, works in place or runs
    another program."""
    targets = {node.target for node in program.graph.nodes if node.op == "call_function"}
    return not any(
        target in table
        or isinstance(target, HigherOrderOperator)
        or (isinstance(target, OpOverload) and target._schema.is_mutable)
        for target in targets
    )


def _rename_conversions(program: ExportedProgram) -> None:
    """Give conversions the name that has a translation; leave out those to the dtype that is there.
    Of devices and of how a copy lies in memory a graph knows nothing."""
    for node in list(program.graph.nodes):
        if node.target in CONVERSIONS:
            source, dtype = node.args[0], node.meta["val"].dtype
            if source.meta["val"].dtype == dtype:
                node.replace_all_uses_with(source)
                program.graph.erase_node(node)
            else:
                node.target, node.args = aten._to_copy.default, (source,)
                node.kwargs = {"dtype": dtype}
    program.graph_module.recompile()
