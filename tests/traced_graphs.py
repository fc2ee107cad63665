"""Each graph is traced once in a run of the tests: a trace takes seconds, and most bundles are
built from an architecture that another test has traced already.

The first test that needs a graph traces it and leaves it in a directory of the run, for every
process; whoever needs the same afterwards reads it. "The same" is everything that the tracer can
see (`description`): the modules' classes, their settings, the shapes and types of their tensors.
Their numbers it cannot see, for `trace` makes them fake. Nothing outlives the run, so each run
proves anew that the installed PyTorch and transformers can be traced.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import onnx
import onnx_ir as ir
import torch
import transformers
from onnx_ir.tensor_adapters import TorchTensor
from torch import nn
from torch._subclasses import FakeTensor
from transformers import PretrainedConfig

from trimexport.graph import compile as compilation
from trimexport.graph.compile import CompiledClassifier

# What models and configurations say that no forward reads: where they lie, how labels are called.
_NAMES = ("name_or_path", "_name_or_path", "id2label", "label2id", "transformers_version")
_NOWHERE = "nowhere"  # the external file of initializers that have no numbers

Trace = Callable[[CompiledClassifier], ir.Model]


class Unknown(Exception):
    """The module holds something of which it is not known what the tracer sees of it."""


def share(directory: Path) -> None:
    """Let every build of this process read and leave traced graphs there."""
    directory.mkdir(exist_ok=True)
    compilation.trace = shared(compilation.trace, directory)


def shared(trace: Trace, directory: Path) -> Trace:
    """`trace`, with graphs that are kept in a directory."""

    def kept(classifier: CompiledClassifier) -> ir.Model:
        try:
            key = key_of(classifier)
        except Unknown:
            return trace(classifier)
        path = directory / f"{key}.onnx"
        with _lock(path.with_suffix(".lock")):
            if not path.exists():
                model = trace(classifier)
                unfinished = path.with_suffix(f".{os.getpid()}")
                unfinished.write_bytes(to_bytes(model))
                unfinished.rename(path)
                return model
        return from_bytes(path.read_bytes())

    return kept


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file that a process which is killed lets go."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def key_of(classifier: CompiledClassifier) -> str:
    """What names its graph.

    Raises:
        Unknown: see there.
    """
    whole = [transformers.__version__, description(classifier)]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def description(value: Any) -> Any:
    """Everything that the tracer can see of a value, as JSON.

    Raises:
        Unknown: see there.
    """
    return _describe(value, {})


def _describe(value: Any, seen: dict[int, int]) -> Any:
    """`seen`: the modules and tensors so far, by identity: which of them are one and the same
    matters."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, torch.dtype | torch.device | Enum):
        return str(value)
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return _name(value)
    if isinstance(value, functools.partial):
        return ["partial", _describe([value.func, value.args, value.keywords], seen)]
    if isinstance(value, list | tuple):
        return [_name(type(value)), *(_describe(it, seen) for it in value)]
    if isinstance(value, set | frozenset):
        return ["set", *sorted(_describe(it, seen) for it in value)]
    if isinstance(value, dict):
        return [[_describe(key, seen), _describe(it, seen)] for key, it in value.items()]
    if isinstance(value, PretrainedConfig):
        return _described_object(value, seen)
    if isinstance(value, torch.Tensor | nn.Module):
        if id(value) in seen:
            return ["again", seen[id(value)]]
        seen[id(value)] = len(seen)
        if isinstance(value, nn.Module):
            return _described_object(value, seen)
        return ["tensor", list(value.shape), str(value.dtype), value.requires_grad]
    raise Unknown(type(value))


def _described_object(value: Any, seen: dict[int, int]) -> Any:
    """Its class and all that it holds."""
    held = {name: it for name, it in vars(value).items() if name not in _NAMES}
    return [_name(type(value)), _describe(held, seen)]


def _name(thing: type | FunctionType | BuiltinFunctionType) -> str:
    """Where a class or a function is defined."""
    if "<" in thing.__qualname__:  # one that was made by a function, which may have settings
        raise Unknown(thing)
    return f"{thing.__module__}.{thing.__qualname__}"


def to_bytes(model: ir.Model) -> bytes:
    """A graph that `trace` has made."""
    numbers = {name: value.const_value for name, value in model.graph.initializers.items()}
    for name, value in model.graph.initializers.items():
        value.const_value = _written(name, numbers[name])
    try:
        return ir.to_proto(model).SerializeToString()
    finally:
        for name, value in model.graph.initializers.items():
            value.const_value = numbers[name]


def _written(name: str, tensor: Any) -> ir.TensorProtocol:
    """What stands for an initializer: its numbers, if the model's forward has written them; a
    reference to no file, if the tracer saw a fake."""
    raw = tensor.raw.constant if isinstance(tensor.raw, FakeTensor) else tensor.raw
    if raw is not None:
        return ir.tensor(raw.detach().contiguous().numpy(), name=name)
    return ir.ExternalTensor(_NOWHERE, 0, 0, tensor.dtype, shape=tensor.shape, name=name)


def from_bytes(content: bytes) -> ir.Model:
    """The graph, as `trace` has made it."""
    model = ir.from_proto(onnx.load_model_from_string(content))
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, ir.ExternalTensor):
            value.const_value = TorchTensor(torch.from_numpy(tensor.numpy().copy()), value.name)
    return model
