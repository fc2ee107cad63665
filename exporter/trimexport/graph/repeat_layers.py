"""Layers of the same kind are traced once and written as often as the model has them.

A decoder is one layer, or two kinds in turn, over and over. Tracing costs seconds a layer, so the
module that is traced keeps the first layer of each kind (`keep_first_of_each`), and the graph then
gets the others as copies of its nodes under their own weights' names (`repeat_layers`). That the
copies are right is no assumption: parity is measured with the untrimmed model, which has them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from torch import nn

from trimexport.source.empty_model import layers_name, layers_of

from .nodes import require, shape_of, token_ids_of

_SCOPES = "pkg.torch.onnx.name_scopes"  # the modules that a node comes from, as the exporter notes
_PLAIN = (int, float, bool, str, type(None))
_OWN = ("layer_idx", "layer_number")


@dataclass(frozen=True)
class Repetition:
    """`layers`: the dotted name of the list; `kinds[i]`: which of the traced layers layer i is;
    `width`: of the hidden states."""

    layers: str
    kinds: tuple[int, ...]
    width: int


def keep_first_of_each(body: nn.Module, config: Any) -> Repetition:
    """Leave in `body` the first layer of each kind, and in `config` their types."""
    layers = layers_of(body)
    number_of: dict[object, int] = {}
    kinds = tuple(number_of.setdefault(_kind(layer), len(number_of)) for layer in layers)
    first = [kinds.index(kind) for kind in range(len(number_of))]
    setattr(body, layers_name(body), nn.ModuleList(layers[index] for index in first))
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[index] for index in first]
    return Repetition(layers_name(body), kinds, config.hidden_size)


def _kind(layer: nn.Module) -> object:
    """The modules of a layer with their settings and the shapes of their weights: two layers that
    are equal in these compute the same function of their weights."""
    modules = []
    for name, module in layer.named_modules():
        scaled_by_place = getattr(module, "scale_attn_by_inverse_layer_idx", False)
        settings = tuple(
            (key, value)
            for key, value in sorted(vars(module).items())
            if isinstance(value, _PLAIN) and (key not in _OWN or scaled_by_place)
        )
        tensors = {**module._parameters, **module._buffers}
        shapes = tuple((key, None if t is None else tuple(t.shape)) for key, t in tensors.items())
        modules.append((name, type(module), settings, shapes))
    return tuple(modules)


def repeat_layers(model: ir.Model, prefix: str, repetition: Repetition) -> None:
    """Write every layer of the decoder into a graph that has the first of each kind.

    Args:
        model: freshly traced; its initializers have no values yet.
        prefix: what the body's parameters are called under in the graph, `body.`.
    """
    graph = model.graph
    name = prefix + repetition.layers
    blocks = [_block(graph, f"{name}.{kind}") for kind in range(max(repetition.kinds) + 1)]
    weights = [_take_weights(graph, f"{name}.{kind}.") for kind in range(len(blocks))]
    inputs = [_take_inputs(graph, kind) for kind in range(len(blocks))]
    leaving = [_outputs_of(block) for block in blocks]
    exits = [_hidden(graph, values, repetition.width) for values in leaving]
    hidden = _hidden(graph, _inputs_of(blocks[0]), repetition.width)
    entries = [hidden, *exits[:-1]]
    made: dict[ir.Value, ir.Value] = {}  # old -> new, of what is used outside its own block
    place = blocks[-1][-1]
    for index, kind in enumerate(repetition.kinds):
        own = _give_weights(graph, f"{name}.{index}.", weights[kind])
        own |= _give_inputs(graph, index, inputs[kind])
        known = {**made, **own, entries[kind]: hidden}
        copies = _copy(blocks[kind], known)
        graph.insert_after(place, copies)
        place, hidden = copies[-1], known[exits[kind]]
        for value in leaving[kind]:
            made.setdefault(value, known[value])
        for value in inputs[kind].values():  # whose size is measured before the first layer
            made.setdefault(value, known[value])
    for old, new in {**made, exits[-1]: hidden}.items():
        old.replace_all_uses_with(new)
    graph.remove([node for block in blocks for node in block], safe=True)


def _block(graph: ir.Graph, name: str) -> list[ir.Node]:
    """The nodes of one layer: from the first that comes from it to the last."""
    nodes = list(graph)
    inside = [i for i, node in enumerate(nodes) if _comes_from(node, name)]
    require(bool(inside), f"nodes that come from {name}")
    return nodes[inside[0] : inside[-1] + 1]


def _comes_from(node: ir.Node, name: str) -> bool:
    return f"'{name}'" in node.metadata_props.get(_SCOPES, "")


def _inputs_of(block: Sequence[ir.Node]) -> list[ir.Value]:
    """What a block reads and does not make."""
    made = {value for node in block for value in node.outputs}
    read = (value for node in block for value in node.inputs if value is not None)
    return list(dict.fromkeys(value for value in read if value not in made))


def _outputs_of(block: Sequence[ir.Node]) -> list[ir.Value]:
    """What a block makes and others read."""
    inside = set(block)
    values = (value for node in block for value in node.outputs)
    return [value for value in values if any(use.node not in inside for use in value.uses())]


def _hidden(graph: ir.Graph, values: Sequence[ir.Value], width: int) -> ir.Value:
    """The hidden states [batch, sequence, width] among what enters or leaves a layer: the first of
    that shape, for a layer begins with its norm. (Rotary tables may have as many rows, and in a
    model with one head as many columns.)"""
    batch, _ = shape_of(token_ids_of(graph))
    hidden = (
        value
        for value in values
        if value.shape is not None
        and len(value.shape) == 3
        and value.shape[0] == batch
        and value.shape[2] == width
    )
    return require(
        next(hidden, None), f"hidden states [batch, sequence, {width}] between two layers"
    )


def _take_weights(graph: ir.Graph, prefix: str) -> dict[str, ir.Value]:
    """Take a traced layer's initializers out of the graph: name within the layer -> initializer."""
    names = [name for name in graph.initializers if name.startswith(prefix)]
    return {name.removeprefix(prefix): graph.initializers.pop(name) for name in names}


def _give_weights(
    graph: ir.Graph, prefix: str, weights: Mapping[str, ir.Value]
) -> dict[ir.Value, ir.Value]:
    """Make a layer's own initializers after those of the traced one; old -> new."""
    own = {}
    for name, old in weights.items():
        new = ir.Value(
            name=prefix + name, shape=old.shape, type=old.type, const_value=old.const_value
        )
        graph.initializers.add(new)
        own[old] = new
    return own


def _take_inputs(graph: ir.Graph, kind: int) -> dict[str, ir.Value]:
    """Take the inputs that belong to a traced layer alone out of the graph: those whose name ends
    in its number, by their name before that."""
    end = f".{kind}"
    own = [value for value in graph.inputs if (value.name or "").endswith(end)]
    for value in own:
        graph.inputs.remove(value)
    return {(value.name or "").removesuffix(end): value for value in own}


def _give_inputs(
    graph: ir.Graph, index: int, inputs: Mapping[str, ir.Value]
) -> dict[ir.Value, ir.Value]:
    """Make a layer's own inputs after those of the traced one; old -> new."""
    own = {
        old: ir.Value(name=f"{name}.{index}", shape=old.shape, type=old.type)
        for name, old in inputs.items()
    }
    graph.inputs.extend(own.values())
    return own


def _copy(block: Sequence[ir.Node], known: dict[ir.Value, ir.Value]) -> list[ir.Node]:
    """The block again, reading what `known` says instead; `known` learns what the copies make."""
    copies = []
    for node in block:
        copy = ir.Node(
            node.domain,
            node.op_type,
            [None if value is None else known.get(value, value) for value in node.inputs],
            node.attributes.values(),
            overload=node.overload,
            outputs=[ir.Value(shape=value.shape, type=value.type) for value in node.outputs],
            version=node.version,
        )
        known.update(zip(node.outputs, copy.outputs, strict=True))
        copies.append(copy)
    return copies
