"""Smoothing: move large activation channels into the weights, before both are quantised.

A token's activations share one scale, so a channel that is a hundred times larger than the others
leaves them two digits less. Dividing it by a factor where it is made, and multiplying the weights
that read it by the same factor, changes nothing in exact arithmetic (SmoothQuant: Xiao et al.
2023). It is made in one of three places, each of which takes the division for free:

- a norm's gain (for Gemma, whose gain is 1 + w, the folded sum), before its products;
- the rows of the up projection, before the down projection; a row's scale is its own;
- the rows of the value projection and the prefix's values, before the output projection.

The factor of channel k is sqrt(a_k / w_k): a_k is how large the activation is, w_k the largest
weight that reads it. a_k is the gain itself, or the norm of the rows that make the channel, or,
with calibration texts, the largest value that they gave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from trimexport.graph.nodes import constant, made_by
from trimexport.graph.streamed_weights import StreamedWeight

from .int8 import Factors
from .matrices import Product, products, rows

# A factor beyond these would only trade one channel's digits for another's.
RANGE = (1e-3, 1e3)
_NORMS = ("RMSNormalization", "LayerNormalization")
_VALUES, _OUTPUT, _PREFIX = "v_proj.weight", "o_proj.weight", "prefix_value"

Activations = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Statistics:
    """Of a matrix behind a gain: the largest weight of each input, float32 [inputs], and the norm
    of each row, float32 [outputs]."""

    largest: torch.Tensor
    norms: torch.Tensor


@dataclass
class _Smoothing:
    """What is known and decided while a graph is smoothed."""

    graph: ir.Graph
    products: Mapping[ir.Node, Product]
    activations: Activations
    statistics: Mapping[str, Statistics]
    factors: dict[str, Factors]

    def decide(self, sizes: torch.Tensor, readers: Sequence[Product]) -> torch.Tensor:
        """The factors of channels that `readers` multiply, and note them for these."""
        known = [size for reader in readers if (size := self.seen(reader)) is not None]
        if known:
            sizes = torch.stack(known).amax(0)
        weights = torch.stack([self.statistics[reader.name].largest for reader in readers]).amax(0)
        factors = balance(sizes, weights)
        for reader in readers:
            self.note(reader, inputs=factors)
        return factors

    def seen(self, product: Product) -> torch.Tensor | None:
        """How large calibration texts made the inputs of a product."""
        return self.activations.get(product.parameter)

    def note(
        self,
        product: Product,
        inputs: torch.Tensor | None = None,
        outputs: torch.Tensor | None = None,
    ) -> None:
        old = self.factors.get(product.name, Factors())
        self.factors[product.name] = Factors(
            old.inputs if inputs is None else inputs, old.outputs if outputs is None else outputs
        )


def balance(sizes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """sqrt(size / weight) for each channel, by their geometric mean; one where either is zero."""
    known = (sizes > 0) & (weights > 0)
    logs = torch.where(known, sizes.clamp(min=1e-30).log() - weights.clamp(min=1e-30).log(), 0.0)
    mean = logs[known].mean() if bool(known.any()) else torch.zeros(())
    factors = torch.exp(0.5 * (logs - mean)).clamp(*RANGE)
    return torch.where(known, factors, 1.0)


def read_statistics(
    model: ir.Model, progress: Callable[[int], None] = lambda done: None
) -> dict[str, Statistics]:
    """Read every streamed matrix of a graph that is not smoothed yet; by the weights' names.

    Args:
        progress: called with the number of bytes of weights read since the last call.
    """
    return {p.name: _measure(p.weight, _gain(p.source), progress) for p in products(model)}


def smooth(
    model: ir.Model, activations: Activations, statistics: Mapping[str, Statistics]
) -> dict[str, Factors]:
    """Divide activations where they are made, in place.

    Args:
        activations: weight name -> the largest value of each of its inputs over calibration
            texts, float32 [inputs]; empty where none are known.
        statistics: of this graph's matrices.

    Returns:
        weight name -> what it must be multiplied with when it is quantised.
    """
    found = products(model)
    work = _Smoothing(model.graph, {p.node: p for p in found}, activations, statistics, {})
    for norm in [node for node in model.graph if node.op_type in _NORMS]:
        _smooth_norm(work, norm)
    for product in found:
        _smooth_gated(work, product)
        _smooth_values(work, product)
    return work.factors


def _measure(
    weight: StreamedWeight, gain: torch.Tensor | None, progress: Callable[[int], None]
) -> Statistics:
    inputs, _ = weight.shape.numpy()
    largest = torch.zeros(inputs)
    norms = []
    for part in rows(weight):
        largest = torch.maximum(largest, part.abs().amax(0))
        norms.append((part if gain is None else part * gain).norm(dim=1))
        progress(part.numel() * 4)
    return Statistics(largest, torch.cat(norms))


def _gain(source: ir.Value) -> torch.Tensor | None:
    """The gain of the norm that makes an activation, through the pick of the last tokens."""
    picked = made_by(source, "GatherND")
    producer = picked.inputs[0].producer() if picked and picked.inputs[0] else source.producer()
    if producer is None or producer.op_type not in _NORMS:
        return None
    return _numbers(producer.inputs[1])


def _numbers(value: ir.Value | None) -> torch.Tensor:
    assert value is not None
    assert value.const_value is not None
    return torch.from_numpy(np.array(value.const_value.numpy(), dtype=np.float32))


def _readers(work: _Smoothing, value: ir.Value) -> list[Product] | None:
    """The products that read a value, through the pick of the last tokens; None if others do."""
    found: list[Product] = []
    for use in value.uses():
        if use.node.op_type == "GatherND" and use.idx == 0:
            more = _readers(work, use.node.outputs[0])
            if more is None:
                return None
            found += more
        elif use.node in work.products and use.idx == 0:
            found.append(work.products[use.node])
        else:
            return None
    return found or None


def _smooth_norm(work: _Smoothing, norm: ir.Node) -> None:
    readers = _readers(work, norm.outputs[0])
    if readers is None:
        return
    gain = _numbers(norm.inputs[1])
    factors = work.decide(gain.abs(), readers)
    _divide(work, norm, 1, factors)
    if len(norm.inputs) > 2 and norm.inputs[2] is not None:
        _divide(work, norm, 2, factors)


def _divide(work: _Smoothing, user: ir.Node, place: int, factors: torch.Tensor) -> None:
    """Give a node an input of its own, a constant [..., channels] divided by the factors."""
    old = user.inputs[place]
    assert old is not None
    new = (_numbers(old) / factors).numpy()
    name = f"{old.name}.smoothed.{user.outputs[0].name}"
    user.replace_input_with(place, constant(work.graph, name, new))


def _smooth_gated(work: _Smoothing, down: Product) -> None:
    """Up against down: the down projection reads gate times up."""
    gated = made_by(down.source, "Mul")
    if gated is None or len(list(down.source.uses())) > 1:
        return
    makers = [work.products.get(value.producer()) for value in gated.inputs if value]  # type: ignore[arg-type]
    ups = [up for up in makers if up is not None and len(list(up.result.uses())) == 1]
    if len(ups) != 1:
        return
    up = ups[0]
    gates = [p for p in work.products.values() if p.source is up.source and p is not up]
    sizes = work.statistics[up.name].norms
    for gate in gates:
        sizes = sizes * work.statistics[gate.name].norms
    work.note(up, outputs=1 / work.decide(sizes, [down]))


def _smooth_values(work: _Smoothing, output: Product) -> None:
    """Values against the output projection, which reads each group's values once per head."""
    if _OUTPUT not in output.name:
        return
    layer = output.name.split(_OUTPUT)[0]
    values = [p for p in work.products.values() if p.name.startswith(layer + _VALUES)]
    uses = [use for value in values for use in value.result.uses()]
    prefix = work.graph.initializers.get(layer + _PREFIX)
    if len(uses) != 1 or uses[0].node.op_type not in ("Reshape", "Add"):
        return
    (value,) = values
    bias = uses[0].node if uses[0].node.op_type == "Add" else None
    if bias is not None and bias.inputs[1 - uses[0].idx].const_value is None:  # type: ignore[union-attr]
        return
    size = _head_size(value)
    groups = len(work.statistics[value.name].norms) // size
    repeats = len(work.statistics[output.name].largest) // (groups * size)
    sizes = work.statistics[value.name].norms.reshape(groups, 1, size)
    seen = work.seen(output)
    if seen is not None:
        sizes = seen.reshape(groups, repeats, size).amax(1, keepdim=True)
    largest = work.statistics[output.name].largest.reshape(groups, repeats, size)
    factors = balance(sizes.flatten(), largest.amax(1).flatten())
    spread = factors.reshape(groups, 1, size).expand(groups, repeats, size)
    work.note(output, inputs=spread.flatten())
    work.note(value, outputs=1 / factors)
    if bias is not None:
        _divide(work, bias, 1 - uses[0].idx, factors)
    if prefix is not None:
        _divide_prefix(work, prefix, factors.reshape(groups, size))


def _head_size(value: Product) -> int:
    """Channels of a head, from the Reshape to [batch, T, heads, size] that follows the values."""
    (use,) = value.result.uses()
    reshape = (
        use.node if use.node.op_type == "Reshape" else next(iter(use.node.outputs[0].uses())).node
    )
    assert reshape.op_type == "Reshape"
    return int(_numbers(reshape.inputs[1])[-1])


def _divide_prefix(work: _Smoothing, prefix: ir.Value, factors: torch.Tensor) -> None:
    """Divide the prefix's values by factors [groups, size]: plain ones [groups, P, size]; or
    [groups, blocks, P, columns], of a lone group [P, size + ones], where the ones stay."""
    old = _numbers(prefix)
    if old.dim() == 3:
        new = old / factors[:, None, :]
    else:
        columns = old.shape[-1] * (1 if old.dim() == 2 else old.shape[1])
        whole = torch.ones(len(factors), columns)
        whole[:, : factors.shape[1]] = factors
        if old.dim() == 4:
            whole = whole.reshape(len(factors), old.shape[1], 1, old.shape[3])
        new = old / whole
    replacement = constant(work.graph, f"{prefix.name}.smoothed", new.numpy())
    prefix.replace_all_uses_with(replacement)
