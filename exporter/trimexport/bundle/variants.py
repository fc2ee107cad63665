"""Write a compiled graph in each precision that is asked for, as the variants of one bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common

from trimexport.errors import SpecError
from trimexport.graph.passes.lower import lower
from trimexport.graph.prefix_attention import PLAIN, STEADY
from trimexport.memory import release
from trimexport.progress import Progress
from trimexport.quantize.calibration import Calibration, poor_calibration
from trimexport.quantize.fp16 import to_fp16
from trimexport.quantize.int4 import stored_form, taken_over, to_int4
from trimexport.quantize.int8 import Factors, to_int8
from trimexport.quantize.matrices import Requantized, products
from trimexport.quantize.rotation import rotate
from trimexport.quantize.smooth import Activations, Weights, largest_weights, smooth
from trimexport.quantize.tensorrt_int8 import to_static_int8
from trimexport.tensorrt.readable import require_readable
from trimexport.texts import Texts
from trimexport_runtime.backends import CPU_PROVIDER
from trimexport_runtime.bundle import FOR_TENSORRT, Variant

from .correction import correct, expected_states
from .onnx_file import Written, external_bytes, write_onnx

CLIENTS_NAME = "onnx/model.onnx"
"""What clients of other makers look for: the graph of the variant named first."""

STATIC = "tensorrt-int8"
"""The variant whose activations have scales from calibration texts, and needs some."""

_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"

Quantize = Callable[[ir.Model, Mapping[str, Factors], Calibration | None], Sequence[Requantized]]


@dataclass(frozen=True)
class Precision:
    """How a precision is made and what its variant is called.

    `quantize` rewrites a graph in place, given the factors that smoothing and rotation ask of its
    weights, and the calibration, if there is one; it returns the weights in their new numbers.
    `smoothed`: whether smoothing goes before it. `rotated`: whether activations are turned.
    `calibrated`: whether it goes by texts, in one way or another, and has its mean error on them
    added back (see `correction`). `attention`: which graph it starts from.
    """

    suffix: str
    quantize: Quantize
    smoothed: bool = False
    rotated: bool = False
    calibrated: bool = False
    attention: str = STEADY
    providers: tuple[str, ...] = (CPU_PROVIDER,)

    @property
    def lowered(self) -> bool:
        """Whether the graph is for engines that know operators up to opset 20 only."""
        return self.attention == PLAIN


def _fp16(model: ir.Model, factors: object, calibration: object) -> Sequence[Requantized]:
    return to_fp16(model)


def _int8(
    model: ir.Model, factors: Mapping[str, Factors], calibration: Calibration | None
) -> Sequence[Requantized]:
    return to_int8(
        model, factors, None if calibration is None else calibration.second_moments(factors)
    )


def _int4(
    model: ir.Model, factors: Mapping[str, Factors], calibration: Calibration | None
) -> Sequence[Requantized]:
    assert calibration is not None
    turned = rotate(model, factors, stored_form)
    weights = to_int4(model, turned, lambda: calibration.second_moments(turned))
    if (taken := taken_over(weights)) is not None:
        calibration.progress.say(
            f"int4 takes {taken.phrase} over from the GGUF file, with its codes and scales"
        )
    return weights


def _static_int8(
    model: ir.Model, factors: Mapping[str, Factors], calibration: Calibration | None
) -> Sequence[Requantized]:
    assert calibration is not None
    return to_static_int8(model, factors, calibration.ranges(factors))


SCHEMES: Mapping[str, Precision] = {
    "fp32": Precision("_fp32", lambda model, factors, calibration: ()),
    "fp16": Precision("_fp16", _fp16, attention=PLAIN, providers=(_CUDA, CPU_PROVIDER)),
    "int8": Precision(
        "_int8",
        _int8,
        smoothed=True,
        rotated=True,
        calibrated=True,
    ),
    "int4": Precision("_q4", _int4, calibrated=True),
    "tensorrt-fp16": Precision(
        "_tensorrt_fp16", _fp16, attention=PLAIN, providers=(_TENSORRT, _CUDA, CPU_PROVIDER)
    ),
    STATIC: Precision(
        "_tensorrt_int8",
        _static_int8,
        smoothed=True,
        rotated=True,
        calibrated=True,
        attention=PLAIN,
        providers=(_TENSORRT, CPU_PROVIDER),
    ),
}


def check_calibration(names: Sequence[str], texts: Texts | None, progress: Progress) -> None:
    """Refuse calibration texts that no variant of these names needs, and warn of poor ones.

    Raises:
        SpecError: there are some, and none needs them; or there is no text among them.
    """
    if texts is None:
        return
    if not any(SCHEMES[name].calibrated for name in names):
        raise SpecError(
            f"calibration texts are given, and {', '.join(names)} needs none; drop them, or build "
            "int8 or int4"
        )
    if (poor := poor_calibration(texts)) is not None:
        progress.say(f"warning: {poor}")


def write_variants(
    graphs: Mapping[str, ir.Model],
    names: Sequence[str],
    work: Path,
    progress: Progress,
    calibration: Calibration | None,
    whole: bool = True,
) -> tuple[tuple[Variant, ...], dict[str, str]]:
    """Write variants into `work`, the first also under the name clients look for.

    Args:
        graphs: kind of attention -> the graph, for each that the variants start from.
        names: keys of `SCHEMES`.
        calibration: the texts by which those are made that are calibrated; None where none is.
        whole: the graphs have their task inside, so that their mean error on it can be corrected
            and clients of other makers can run them.

    Returns:
        the variants, without parity; and the SHA-256 of each data file.

    Raises:
        ExportError: a graph that is not what its engine reads.
    """
    (work / "onnx").mkdir()
    written = Written()
    hashes: dict[str, str] = {}
    errors: dict[str | None, float] = {}
    variants: list[Variant] = []
    smoothed = any(SCHEMES[name].smoothed for name in names)
    seen = None if calibration is None else see(graphs, calibration, smoothed)
    for name in names:
        model, weights = quantised(graphs, SCHEMES[name], seen)
        release()
        variant, sha256 = _write(
            model, name, whole and not variants, work, written, seen if whole else None, progress
        )
        if name.startswith(FOR_TENSORRT):
            require_readable(work / variant.graph)
        # What an earlier variant wrote did not stream by again.
        errors |= {weight.name: weight.error for weight in weights if weight.error is not None}
        worst = max((errors[weight.name] for weight in weights), default=None)
        taken = taken_over(weights)
        variants.append(replace(variant, weight_error=worst, taken_over=taken))
        hashes.update(sha256)
    return tuple(variants), hashes


@dataclass(frozen=True)
class Seen:
    """What calibration texts show: where something is smoothed, how large they make activations,
    and the weights that these meet."""

    calibration: Calibration
    activations: Activations
    weights: Weights


def see(graphs: Mapping[str, ir.Model], calibration: Calibration, smoothed: bool) -> Seen:
    """Look at what calibration texts show; at activations only if something is `smoothed`."""
    if not smoothed:
        return Seen(calibration, {}, {})
    graph, *_ = graphs.values()  # the matrices are the same in all of them
    activations = calibration.ranges({})
    size = sum(product.weight.nbytes for product in products(graph))
    with calibration.progress.bar("smoothing", size) as tick:
        return Seen(calibration, activations, largest_weights(graph, tick))


def quantised(
    graphs: Mapping[str, ir.Model],
    scheme: Precision,
    seen: Seen | None,
) -> tuple[ir.Model, Sequence[Requantized]]:
    """A graph in a precision: smoothed, rotated, quantised and lowered, as the precision asks for.

    Args:
        graphs: kind of attention -> the graph; they are left as they are.
        seen: of texts, for a precision that is calibrated.

    Returns:
        the graph, and the weights in their new numbers.
    """
    model = graphs[scheme.attention].clone()
    factors: dict[str, Factors] = {}
    if scheme.smoothed and seen is not None:
        factors = smooth(model, seen.activations, seen.weights)
    if scheme.rotated:
        factors = rotate(model, factors)
    weights = scheme.quantize(model, factors, None if seen is None else seen.calibration)
    if scheme.lowered:
        lower(model)
    common.RemoveUnusedNodesPass()(model)
    return model, weights


def _write(
    model: ir.Model,
    name: str,
    first: bool,
    work: Path,
    written: Written,
    seen: Seen | None,
    progress: Progress,
) -> tuple[Variant, dict[str, str]]:
    scheme = SCHEMES[name]
    suffix = "" if first and name == "fp32" else scheme.suffix
    graph = f"onnx/model{suffix}.onnx"
    data = f"{graph}_data"
    with progress.bar(f"writing {name}", external_bytes(model)) as tick:
        hashes = {data: write_onnx(model, work / graph, work / data, tick, written)}
    if scheme.calibrated and seen is not None:
        expected = expected_states(seen.calibration)
        with progress.bar(f"correcting {name}", len(expected.texts)) as tick:
            correct(work / graph, expected, tick)
    if not (work / data).stat().st_size:  # all of it is in earlier variants' files
        (work / data).unlink()
        hashes = {}
    files = [graph, *sorted(f"onnx/{file}" for file in data_files(model))]
    size = (work / graph).stat().st_size + _referred(model)
    if first and graph != CLIENTS_NAME:
        shutil.copyfile(work / graph, work / CLIENTS_NAME)
        files.append(CLIENTS_NAME)
    variant = Variant(
        name=name,
        graph=graph,
        files=tuple(files),
        precision=name,
        opset=model.opset_imports[""],
        providers=scheme.providers,
        bytes=size,
        operators=tuple(sorted(domain or "ai.onnx" for domain in _domains(model))),
    )
    return variant, hashes


def data_files(model: ir.Model) -> set[str]:
    """The names of the data files that a written graph refers to."""
    return {str(tensor.location) for tensor in _external(model)}


def _referred(model: ir.Model) -> int:
    """The bytes of data files that a written graph refers to. A file that variants share counts in
    each of them by what it needs of it."""
    places = {(str(it.location), it.offset): it.nbytes for it in _external(model)}
    return sum(places.values())


def _external(model: ir.Model) -> list[ir.ExternalTensor]:
    tensors = (value.const_value for value in model.graph.initializers.values())
    return [tensor for tensor in tensors if isinstance(tensor, ir.ExternalTensor)]


def _domains(model: ir.Model) -> set[str]:
    return {node.domain for node in model.graph}
