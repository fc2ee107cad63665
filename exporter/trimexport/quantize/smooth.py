"""Smoothing: move large activation channels into the weights, before both are quantised.

Where texts show that a channel is larger than the others that share its scale, dividing it by a
factor where it is made, and multiplying the weights that read it by as much, changes nothing in
exact arithmetic and leaves the others more digits (SmoothQuant: Xiao et al. 2023). It is made in
one of three places, each of which takes the division for free:

- a norm's gain (for Gemma, whose gain is 1 + w, the folded sum), before its products;
- the rows of the up projection, before the down projection; a row's scale is its own;
- the rows of the value projection and the prefix's values, before the output projection.

The factor of channel k is sqrt(a_k / w_k): a_k is the largest value that the texts gave, w_k the
largest weight that reads it. Without texts nothing is smoothed: a norm's gain does not tell which
activations are large, and factors that go by it make int8 worse than none (see docs/concepts.md).
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


Weights = Mapping[str, torch.Tensor]
"""Name -> the largest weight of each input, float32 [inputs]."""


@dataclass
class _Smoothing:
    """What is known and decided while a graph is smoothed."""

    graph: ir.Graph
    products: Mapping[ir.Node, Product]
    activations: Activations
    largest: Weights
    factors: dict[str, Factors]

    def seen(self, readers: Sequence[Product]) -> torch.Tensor | None:
        """How large the texts made the channels that `readers` multiply."""
        found = [self.activations.get(reader.parameter) for reader in readers]
        known = [sizes for sizes in found if sizes is not None]
        return torch.stack(known).amax(0) if known else None

    def decide(self, sizes: torch.Tensor, readers: Sequence[Product]) -> torch.Tensor:
        """The factors of channels that `readers` multiply, and note them for these."""
        weights = torch.stack([self.largest[reader.name] for reader in readers]).amax(0)
        factors = balance(sizes, weights)
        for reader in readers:
            self.note(reader, inputs=factors)
        return factors

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


def largest_weights(
    model: ir.Model, progress: Callable[[int], None] = lambda done: None
) -> dict[str, torch.Tensor]:
    """Read every streamed matrix of a graph for the largest weight of each input.

    Args:
        progress: called with the number of bytes of weights read since the last call.
    """
    return {product.name: _largest(product.weight, progress) for product in products(model)}


def smooth(model: ir.Model, activations: Activations, largest: Weights) -> dict[str, Factors]:
    """Divide activations where they are made, in place.

    Args:
        activations: parameter name -> the largest value of each of its inputs over calibration
            texts, float32 [inputs]; what they do not know is left alone.
        largest: of this graph's matrices (see `largest_weights`).

    Returns:
        weight name -> what it must be multiplied with when it is quantised.
    """
    found = products(model)
    work = _Smoothing(model.graph, {p.node: p for p in found}, activations, largest, {})
    for norm in [node for node in model.graph if node.op_type in _NORMS]:
        _smooth_norm(work, norm)
    for product in found:
        _smooth_gated(work, product)
        _smooth_values(work, product)
    return work.factors


def _largest(weight: StreamedWeight, progress: Callable[[int], None]) -> torch.Tensor:
    largest = torch.zeros(weight.shape.numpy()[0])
    for part in rows(weight):
        largest = torch.maximum(largest, part.abs().amax(0))
        progress(part.numel() * 4)
    return largest


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
    sizes = None if readers is None else work.seen(readers)
    if readers is None or sizes is None:
        return
    factors = work.decide(sizes, readers)
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
    gated, sizes = made_by(down.source, "Mul"), work.seen([down])
    if gated is None or sizes is None or len(list(down.source.uses())) > 1:
        return
    makers = [work.products.get(value.producer()) for value in gated.inputs if value]  # type: ignore[arg-type]
    ups = [up for up in makers if up is not None and len(list(up.result.uses())) == 1]
    if len(ups) != 1:
        return
    work.note(ups[0], outputs=1 / work.decide(sizes, [down]))


def _smooth_values(work: _Smoothing, output: Product) -> None:
    """Values against the output projection, which reads each group's values once per head."""
    seen = work.seen([output])
    if _OUTPUT not in output.name or seen is None:
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
    groups = value.weight.shape.numpy()[1] // size
    sizes = seen.reshape(groups, -1, size)
    largest = work.largest[output.name].reshape(sizes.shape)
    factors = balance(sizes.amax(1).flatten(), largest.amax(1).flatten())
    spread = factors.reshape(groups, 1, size).expand(sizes.shape)
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
