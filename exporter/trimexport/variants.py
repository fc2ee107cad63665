"""Write a compiled graph in each precision that is asked for, as the variants of one bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common

from trimexport_runtime.backends import CPU_PROVIDER
from trimexport_runtime.bundle import Variant

from .graph import OPSET
from .memory import release
from .progress import Progress
from .quantize.fp16 import to_fp16
from .quantize.int4 import to_int4
from .quantize.int8 import Factors, to_int8
from .quantize.matrices import Requantized, products
from .quantize.smooth import Activations, Statistics, read_statistics, smooth
from .serialise import Written, external_bytes, write_onnx

CLIENTS_NAME = "onnx/model.onnx"
"""What clients of other makers look for: the graph of the variant named first."""

_GPU = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Precision:
    """How a precision is made and what its variant is called.

    `quantize` rewrites a graph in place, given the factors that smoothing asks of its weights, and
    returns the weights in their new numbers. `smoothed`: whether smoothing goes before it.
    """

    suffix: str
    quantize: Callable[[ir.Model, Mapping[str, Factors]], Sequence[Requantized]]
    smoothed: bool = False
    providers: tuple[str, ...] = (CPU_PROVIDER,)


SCHEMES: Mapping[str, Precision] = {
    "fp32": Precision("_fp32", lambda model, factors: ()),
    "fp16": Precision(
        "_fp16", lambda model, factors: to_fp16(model), providers=(_GPU, CPU_PROVIDER)
    ),
    "int8": Precision("_int8", to_int8, smoothed=True),
    "int4": Precision("_q4", to_int4, smoothed=True),
}


def write_variants(
    graph: ir.Model,
    precisions: Sequence[str],
    work: Path,
    progress: Progress,
    activations: Activations,
) -> tuple[tuple[Variant, ...], dict[str, str]]:
    """Write the graph's variants into `work`, the first also under the name clients look for.

    Args:
        activations: what calibration texts gave (see `quantize.smooth`); empty without any.

    Returns:
        the variants, without parity; and the SHA-256 of each data file.
    """
    (work / "onnx").mkdir()
    written = Written()
    hashes: dict[str, str] = {}
    errors: dict[str | None, float] = {}
    variants: list[Variant] = []
    statistics: dict[str, Statistics] = {}
    if any(SCHEMES[name].smoothed for name in precisions):
        size = sum(product.weight.nbytes for product in products(graph))
        with progress.bar("smoothing", size) as tick:
            statistics = read_statistics(graph, tick)
    for name in precisions:
        model = graph.clone()
        factors = smooth(model, activations, statistics) if SCHEMES[name].smoothed else {}
        tensors = SCHEMES[name].quantize(model, factors)
        common.RemoveUnusedNodesPass()(model)
        release()
        variant, sha256 = _write(model, name, not variants, work, written, progress)
        # What an earlier variant wrote did not stream by again.
        errors |= {it.name: it.error for it in tensors if it.error is not None}
        worst = max((errors[it.name] for it in tensors), default=None)
        variants.append(replace(variant, weight_error=worst))
        hashes.update(sha256)
    return tuple(variants), hashes


def _write(
    model: ir.Model, name: str, first: bool, work: Path, written: Written, progress: Progress
) -> tuple[Variant, dict[str, str]]:
    scheme = SCHEMES[name]
    suffix = "" if first and name == "fp32" else scheme.suffix
    graph = f"onnx/model{suffix}.onnx"
    data = f"{graph}_data"
    with progress.bar(f"writing {name}", external_bytes(model)) as tick:
        sha256 = write_onnx(model, work / graph, work / data, tick, written)
    files = [graph, *sorted(f"onnx/{file}" for file in data_files(model))]
    size = sum((work / file).stat().st_size for file in files)
    if first and graph != CLIENTS_NAME:
        shutil.copyfile(work / graph, work / CLIENTS_NAME)
        files.append(CLIENTS_NAME)
    variant = Variant(
        name=name,
        graph=graph,
        files=tuple(files),
        precision=name,
        opset=OPSET,
        providers=scheme.providers,
        bytes=size,
        operators=tuple(sorted(domain or "ai.onnx" for domain in _domains(model))),
    )
    return variant, {data: sha256}


def data_files(model: ir.Model) -> set[str]:
    """The names of the data files that a written graph refers to."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return {str(tensor.location) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}


def _domains(model: ir.Model) -> set[str]:
    return {node.domain for node in model.graph}
