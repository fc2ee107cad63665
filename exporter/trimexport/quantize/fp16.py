"""fp16: weights and their products in float16, for GPUs; the rest of the graph in float32.

A product with a stored matrix runs in float16, and so does what stands between two of them: the
biases, the activation and the gate of an MLP. That is where nearly all bytes and operations are.
All else is an island of float32, because float16 ends at 65504 and has 11 bits:

- The residual stream and the norms: Gemma 3's hidden states and the results of its post-norms
  are larger than 65504, and a norm squares them.
- Attention between its projections: scores of some families (Qwen 2, Phi) leave float16 before
  the softmax or lose their differences in it, and the weights' sums grow with the length of the
  text. TF32, which ONNX Runtime uses for float32 products on GPUs that have it, holds as many bits
  as float16.
- Rotary tables, the embedding's scale, soft-caps, and the head with its logits.

A product whose result leaves float16 all the same becomes infinite and then no number, which the
runtime refuses to answer with.

What the build measures is no proof of that: it runs on the CPU, where ONNX Runtime takes out the
casts and computes float16 in float32, the weights alone being rounded. ONNX's reference evaluator
rounds every result; by it (`benchmarks/rounded.py`) gemma-mini's logits differ by 0.0034 at most on
1,821 sentences and no answer changes, where the build sees 6e-6.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import torch

from trimexport.errors import ExportError
from trimexport.graph.nodes import initializer, node
from trimexport.graph.streamed_weights import StreamedWeight, turned

from .matrices import Error, Requantized, products

# What may stand between two products in float16. Its other inputs are constants, or results in
# float16 themselves.
BETWEEN = frozenset(("Add", "Mul", "Gelu", "Sigmoid", "Tanh", "Relu", "Split", "Slice"))
LARGEST = float(np.finfo(np.float16).max)


def to_half(part: torch.Tensor, name: str) -> torch.Tensor:
    """float32 -> float16.

    Raises:
        ExportError: a number is outside float16's range.
    """
    half = part.to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        largest = float(part.abs().max())
        raise ExportError(
            f"tensor {name} holds {largest:g}, float16 ends at {LARGEST:g}; build this model with "
            "--precision fp32 or int8"
        )
    return half


class HalfWeight(Requantized):
    """A tensor of the checkpoint as float16; a transposed one comes in one block."""

    def __init__(self, weight: StreamedWeight) -> None:
        super().__init__(ir.DataType.FLOAT16, weight.shape.numpy(), f"{weight.name}.fp16")
        self._weight = weight

    def blocks(self) -> Iterator[np.ndarray]:
        if self._weight.transposed:
            yield turned(self._halves(), self.shape.numpy(), np.float16)
        else:
            yield from self._halves()

    def _halves(self) -> Iterator[np.ndarray]:
        error = Error()
        for part in self._weight.stored():
            half = to_half(part, self._weight.source)
            error.add(part, part - half)
            yield half.numpy()
        self.error = error.relative()


def to_fp16(model: ir.Model) -> list[Requantized]:
    """Let every product with a streamed matrix, what stands between two of them, and the lookup of
    embeddings run in float16, in place; return the weights that are float16 now. Inputs and logits
    keep their types; each value that is needed in the other type is cast once."""
    ends = {product.node for product in products(model)} | _lookups(model)
    half = ends | _between(model, ends)
    types = _Types(model.graph)
    for candidate in [each for each in model.graph if each in half]:
        for place in range(len(candidate.inputs)):
            types.feed(candidate, place)
        for value in candidate.outputs:
            value.type = ir.TensorType(ir.DataType.FLOAT16)  # a clone shares the old one
            types.give_back(value, half)
    return list(types.weights)


def _lookups(model: ir.Model) -> set[ir.Node]:
    """The nodes that look tokens or positions up in a streamed table."""
    return {
        candidate
        for candidate in model.graph
        if candidate.op_type == "Gather" and _constant(candidate.inputs[0], StreamedWeight)
    }


def _between(model: ir.Model, ends: set[ir.Node]) -> set[ir.Node]:
    """The nodes that read only constants and results in float16, and whose results only nodes in
    float16 read."""
    found = {candidate for candidate in model.graph if candidate.op_type in BETWEEN}
    while True:
        half = found | {end for end in ends if end.op_type != "Gather"}
        kept = {candidate for candidate in found if _stays(candidate, half)}
        if kept == found:
            return found
        found = kept


def _stays(candidate: ir.Node, half: set[ir.Node]) -> bool:
    read = [value for value in candidate.inputs if not _constant(value, object)]
    users = [use.node for value in candidate.outputs for use in value.uses()]
    return (
        all(value is not None and value.producer() in half for value in read)
        and bool(users)
        and all(user in half for user in users)
    )


def _constant(value: ir.Value | None, kind: type) -> bool:
    return (
        value is not None and value.const_value is not None and isinstance(value.const_value, kind)
    )


class _Types:
    """Values in the type that their readers need, each made once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._half: dict[ir.Value, ir.Value] = {}
        self.weights: list[HalfWeight] = []

    def feed(self, reader: ir.Node, place: int) -> None:
        """Let a node read its input as float16."""
        value = reader.inputs[place]
        if value is None or value.dtype != ir.DataType.FLOAT:
            return
        if value not in self._half:
            known = value.const_value is not None
            self._half[value] = self._constant(value) if known else self._cast(value)
        reader.replace_input_with(place, self._half[value])
        if value.is_initializer() and not value.uses():
            self._graph.initializers.pop(value.name or "")

    def give_back(self, value: ir.Value, half: set[ir.Node]) -> None:
        """Let all others read a result in float16 as float32."""
        others = [use for use in value.uses() if use.node not in half]
        if not others:
            return
        cast = node("Cast", [value], shape=value.shape, to=int(ir.DataType.FLOAT))
        producer = value.producer()
        assert producer is not None
        self._graph.insert_after(producer, cast)
        for use in others:
            use.node.replace_input_with(use.idx, cast.outputs[0])

    def _cast(self, value: ir.Value) -> ir.Value:
        kind = ir.DataType.FLOAT16
        cast = node("Cast", [value], dtype=kind, shape=value.shape, to=int(kind))
        producer = value.producer()
        assert producer is not None
        self._graph.insert_after(producer, cast)
        return cast.outputs[0]

    def _constant(self, value: ir.Value) -> ir.Value:
        name, tensor = value.name or "", value.const_value
        assert tensor is not None
        half: ir.TensorProtocol
        if isinstance(tensor, StreamedWeight):
            half = HalfWeight(tensor)
            self.weights.append(half)
        else:
            numbers = to_half(torch.from_numpy(np.array(tensor.numpy())), name)
            half = ir.tensor(numbers.numpy(), name=f"{name}.fp16")
        return initializer(self._graph, half)
