"""From the compiled classifier to ONNX, without its weights."""

from __future__ import annotations

import contextlib
import gc
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
import torch._dynamo.config
from torch import nn
from torch._subclasses import FakeTensorMode

from trimexport.errors import ExportError
from trimexport_runtime.bundle import INPUTS, OUTPUT

from .task_inputs import Taken
from .undecomposed import to_onnx

OPSET = 23
_DTYPES = {"float32": torch.float32, "int64": torch.int64}


def trace(classifier: Any) -> ir.Model:
    """Trace to ONNX IR with symbolic dimensions; its weights have no values yet.

    Requires a module whose `inputs` say what its `forward` takes, by name and in order: the text's,
    and all others as one tuple. Its parameters and buffers are replaced by fake tensors, so nobody
    may need their values any more.

    Raises:
        ExportError: the model's forward cannot be traced.
    """
    mode = FakeTensorMode()
    _make_fake(classifier, mode)
    taken: Mapping[str, Taken] = classifier.inputs
    sizes = _sizes(taken)
    with mode:
        example = [_example(each, sizes) for each in taken.values()]
    dims = {name: torch.export.Dim(name) for name in sizes}
    shapes = [
        {place: dims[dim] for place, dim in enumerate(it.shape) if isinstance(dim, str)}
        for it in taken.values()
    ]
    # The cache keys of fake results cost more than the results: a quarter of a trace.
    uncached = torch._dynamo.config.patch(fake_tensor_cache_enabled=False)
    with _quiet(), _rare_collections(), uncached, torch.no_grad():
        try:
            program = torch.export.export(
                classifier,
                _together(example),
                dynamic_shapes=_together(shapes),
                strict=False,
                # Guards on strides hold for every size, but not every one is proved to.
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            exported = to_onnx(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(taken),
                output_names=[OUTPUT],
                optimize=False,
                verbose=False,
            )
        except Exception as error:  # the exporter raises many kinds, all of them final
            first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise ExportError(
                f"the model's forward cannot be traced to ONNX ({first}); check that the installed "
                "torch and transformers are versions this release supports"
            ) from error
    assert exported is not None  # None is for those who name a file
    return exported.model


def _sizes(taken: Mapping[str, Taken]) -> dict[str, int]:
    """A size for each dimension that has a name, all of them different and none of them 1, so that
    the tracer takes no two for the same."""
    names = dict.fromkeys(dim for it in taken.values() for dim in it.shape if isinstance(dim, str))
    return {name: 2 + 5 * place for place, name in enumerate(names)}


def _example(taken: Taken, sizes: Mapping[str, int]) -> torch.Tensor:
    """An input of these sizes."""
    shape = [sizes[dim] if isinstance(dim, str) else dim for dim in taken.shape]
    return torch.ones(shape, dtype=_DTYPES[taken.dtype])


def _together(values: Sequence[Any]) -> tuple[Any, ...]:
    """Values for the arguments of `forward`: the text's, and all others in one tuple."""
    first, rest = tuple(values[: len(INPUTS)]), tuple(values[len(INPUTS) :])
    return (*first, rest) if rest else first


def _make_fake(module: nn.Module, mode: FakeTensorMode) -> None:
    """Replace every parameter and buffer by a fake CPU tensor of the same shape and dtype."""
    for child in module.modules():
        for name, parameter in child._parameters.items():
            if parameter is not None:
                with mode:
                    empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
                child._parameters[name] = nn.Parameter(empty, requires_grad=False)
        for name, buffer in child._buffers.items():
            if buffer is not None:
                with mode:
                    child._buffers[name] = torch.empty(
                        buffer.shape, dtype=buffer.dtype, device="cpu"
                    )


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look for garbage less often: a trace makes millions of objects that stay, and
    looking through them again and again takes a fifth of its time."""
    usual = gc.get_threshold()
    gc.set_threshold(100_000, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's warnings about optional packages away from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
