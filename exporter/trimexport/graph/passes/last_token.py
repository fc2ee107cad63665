"""Compute the last layer for the last tokens only, once its keys and values are there.

Requires: the hidden states [batch, T, hidden] of all tokens meet one `GatherElements` on axis 1
that picks some tokens of each row: COPIES of the last, or the labels' branches.
Ensures: the pick stands where the other tokens are still needed: at what the last layer's queries
are made of, at the residual, at the positions and masks. Everything behind it (queries, scores,
output product, MLP, final norm) has COPIES rows a text. The same numbers.

Gain: the last layer costs its key and value products alone; 1 / layers of the whole.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trimexport.graph.nodes import constant, input_of, maker_of, node, require, shape_of

# By operator, the inputs that have a row for each query; the others are the same for all tokens.
_QUERIES = {
    "MatMul": (0,),
    "Gemm": (0,),
    "RotaryEmbedding": (0, 1, 2, 3),
    "RMSNormalization": (0,),
    "LayerNormalization": (0,),
    **dict.fromkeys(("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Split", "Slice"), (0,)),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "Cast", "Gelu", "Tanh", "Sigmoid", "Exp"), (0,)),
    **dict.fromkeys(("Sqrt", "Reciprocal", "Neg", "Pow", "Erf", "Softmax"), (0,)),
}
_ELEMENTWISE = frozenset(("Add", "Sub", "Mul", "Div", "Max", "Where", "And", "Concat"))


def last_token(model: ir.Model) -> None:
    """Apply the pass in place."""
    graph = model.graph
    picks = (candidate for candidate in reversed(graph) if candidate.op_type == "GatherElements")
    pick = require(next(picks, None), "a GatherElements that picks the tokens that the head reads")
    hidden, index = input_of(pick, 0), _index(pick)
    length = str(shape_of(hidden, rank=3)[1])
    moved, entries = _behind(graph, pick, length)
    picked: dict[tuple[ir.Value, int], ir.Value] = {}
    for user, place in entries:
        value = input_of(user, place)
        rank = max(len(user.outputs[0].shape or ()), len(shape_of(value)))
        key = (value, rank)
        if key not in picked:
            picked[key] = _pick(graph, value, index, rank, length)
        user.replace_input_with(place, picked[key])
    for user in moved:
        for result in user.outputs:
            result.shape = _after_picking(result.shape)
    pick.outputs[0].replace_all_uses_with(hidden)


def _index(pick: ir.Node) -> ir.Value:
    """The places of the picked tokens, int64 [batch, COPIES], from what the pick expands."""
    expand = maker_of(input_of(pick, 1), "Expand")
    index = input_of(maker_of(input_of(expand, 0), "Unsqueeze"), 0)
    shape_of(index, rank=2)
    return index


def _behind(
    graph: ir.Graph, pick: ir.Node, length: str
) -> tuple[set[ir.Node], list[tuple[ir.Node, int]]]:
    """The nodes whose every result is needed at the last tokens only, and where others feed
    them."""
    wanted: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
    moved: set[ir.Node] = set()
    entries: list[tuple[ir.Node, int]] = []

    def want(user: ir.Node, places: tuple[int, ...]) -> None:
        for place in places:
            value = user.inputs[place] if place < len(user.inputs) else None
            if value is not None and _has(value, length) and not _is_cache(user, place):
                wanted.setdefault(value, []).append((user, place))

    want(pick, (0,))
    for candidate in reversed(graph):
        asked = [value for value in candidate.outputs if value in wanted]
        if not asked:
            continue
        users = {use.node for value in candidate.outputs for use in value.uses()}
        places = _QUERIES.get(candidate.op_type)
        if candidate.op_type in _ELEMENTWISE:
            places = tuple(range(len(candidate.inputs)))
        batched = all(_is_batched(value) for value in asked)
        if places is not None and batched and users <= moved | {pick}:
            moved.add(candidate)
            want(candidate, places)
        else:
            entries.extend(use for value in asked for use in wanted[value])
    return moved, entries


def _is_cache(user: ir.Node, place: int) -> bool:
    """Whether an input is a rotary table that all rows look their positions up in."""
    return user.op_type == "RotaryEmbedding" and place in (1, 2) and len(user.inputs) > 3


def _dims(value: ir.Value) -> list[str]:
    return [] if value.shape is None else [str(dim) for dim in value.shape]


def _is_batched(value: ir.Value) -> bool:
    """Whether a value differs from text to text, unlike masks and tables."""
    return value.shape is None or (len(value.shape) > 2 and not isinstance(value.shape[0], int))


def _has(value: ir.Value, length: str) -> bool:
    """Whether a value may have a row for each token. One without a shape may: the tracer gives none
    to results in the middle of an operator that it writes as several."""
    if value.const_value is not None:
        return False
    dims = _dims(value)
    return (
        value.shape is None
        or dims[:1] == [length]
        or any(not isinstance(dim, int) for dim in value.shape[1:])
    )


def _pick(graph: ir.Graph, value: ir.Value, index: ir.Value, rank: int, length: str) -> ir.Value:
    """The picked tokens' rows of a value. Of [batch, T, ...] and [batch, 1, T, n] they have the
    shape with COPIES in place of T; of [..., T, n], which is the same for all texts, they are
    [batch, 1 ..., COPIES, n] of the given rank."""
    dims = _dims(value)
    if dims[:1] != _dims(index)[:1]:
        made = _pick_shared(graph, value, index, rank, length)
    elif dims[1:2] == [length]:
        made = _pick_own(graph, value, index)
    else:
        require(dims[1:3] == ["1", length], f"a row for each token in {value.name} {value.shape}")
        made = _pick_masked(graph, value, index)
    _insert(graph, made, value, index)
    return made[-1].outputs[0]


def _pick_own(graph: ir.Graph, value: ir.Value, index: ir.Value) -> list[ir.Node]:
    """The nodes that pick of [batch, T, ...] and make [batch, COPIES, ...]."""
    places = shape_of(index)
    last = constant(graph, "int_-1", np.array([-1]))
    place = node("Unsqueeze", [index, last], dtype=ir.DataType.INT64, shape=[*places, 1])
    rows = node(
        "GatherND",
        [value, place.outputs[0]],
        dtype=value.dtype or ir.DataType.FLOAT,
        shape=[*places, *shape_of(value)[2:]],
        batch_dims=1,
    )
    return [place, rows]


def _pick_masked(graph: ir.Graph, value: ir.Value, index: ir.Value) -> list[ir.Node]:
    """The nodes that pick of [batch, 1, T, n] and make [batch, 1, COPIES, n]."""
    batch, one, *rest = shape_of(value)
    kind = value.dtype or ir.DataType.FLOAT
    axis = constant(graph, "int_1", np.array([1]))
    flat = node("Squeeze", [value, axis], dtype=kind, shape=[batch, *rest])
    made = [flat, *_pick_own(graph, flat.outputs[0], index)]
    rows = made[-1].outputs[0]
    spread = node("Unsqueeze", [rows, axis], dtype=kind, shape=[batch, one, *shape_of(rows)[1:]])
    return [*made, spread]


def _pick_shared(
    graph: ir.Graph, value: ir.Value, index: ir.Value, rank: int, length: str
) -> list[ir.Node]:
    """The nodes that pick of [..., T, n], which is the same for all texts, and make [batch, 1 ...,
    COPIES, n] of the given rank."""
    batch, copies = shape_of(index)
    shape = shape_of(value)
    dims = _dims(value)
    kind = value.dtype or ir.DataType.FLOAT
    shared = dims[-2:-1] == [length] and all(dim == "1" for dim in dims[:-2])
    require(shared, f"a row for each token in {value.name} {shape}")
    made = []
    table = value
    if len(dims) > 2:
        axes = constant(graph, f"axes_{len(dims) - 2}", np.arange(len(dims) - 2))
        made.append(node("Squeeze", [value, axes], dtype=kind, shape=shape[-2:]))
        table = made[-1].outputs[0]
    rows = node("Gather", [table, index], dtype=kind, shape=[batch, copies, shape[-1]])
    inner = np.arange(1, rank - 2)
    spread = node(
        "Unsqueeze",
        [rows.outputs[0], constant(graph, f"inner_{rank}", inner)],
        dtype=kind,
        shape=[batch, *[1] * len(inner), copies, shape[-1]],
    )
    return [*made, rows, spread] if len(inner) else [*made, rows]


def _insert(graph: ir.Graph, made: list[ir.Node], value: ir.Value, index: ir.Value) -> None:
    """Put nodes behind whichever of the two values they read is made last."""
    order = {candidate: place for place, candidate in enumerate(graph)}
    makers = [maker for maker in (value.producer(), index.producer()) if maker is not None]
    last = max(makers, key=order.__getitem__, default=None)
    graph.insert_after(require(last, f"a node that makes {value.name} or {index.name}"), made)


def _after_picking(shape: ir.Shape | None) -> ir.Shape | None:
    """The shape with every dimension unknown that is no fixed number, but for the first."""
    if shape is None:
        return None
    inner = [dim if isinstance(dim, int) else None for dim in shape[1:]]
    return ir.Shape([shape[0], *inner])
