"""What a build would cut: layers, parameters and bytes, before and after."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from trimexport.graph.classifier import split_prefix
from trimexport.planning import Plan
from trimexport.source.empty_model import (
    body_of,
    layers_of,
    make_skeleton,
    module_name,
    output_layer,
    parameter_names,
)
from trimexport.source.families import reference_attention
from trimexport.source.low_rank import Adapter


@dataclass(frozen=True)
class Part:
    """A part of the model: how many modules and parameters it has, before and after the cut."""

    name: str
    modules: int
    before: int
    after: int


@dataclass(frozen=True)
class Merge:
    """What an adapter changes: how many matrices, by which ranks, and tensors that it replaces."""

    adapter: str
    matrices: int
    ranks: tuple[int, ...]
    replaced: int


@dataclass(frozen=True)
class Inspection:
    """Bytes are of weights: `checkpoint_bytes` as they lie on disk, the others in float32.
    `head_before` and `head_after` count multiplications of the output layer per text."""

    parts: tuple[Part, ...]
    tied: bool
    checkpoint_bytes: int
    bytes_before: int
    bytes_after: int
    prefix_bytes: int
    head_before: int
    head_after: int
    merge: Merge | None = None


def inspect_plan(planned: Plan) -> Inspection:
    """Count, from the headers alone; no weight is read."""
    checkpoint = planned.checkpoint
    model = make_skeleton(checkpoint, reference_attention(checkpoint.config))
    names = parameter_names(model, checkpoint)
    embedding = module_name(model, model.get_input_embeddings()) + "."
    head = module_name(model, output_layer(model)) + "."
    stack = layers_of(body_of(model))
    layers = module_name(model, stack) + "."
    tied = names[head + "weight"] == names[embedding + "weight"]
    sizes = {name: prod(checkpoint.tensors[source].shape) for name, source in names.items()}
    rows, hidden = checkpoint.tensors[names[head + "weight"]].shape
    kept = len(planned.rows) * (hidden + 1)
    count = len(stack)
    inside = sum(size for name, size in sizes.items() if name.startswith(layers))
    table = sum(size for name, size in sizes.items() if name.startswith(embedding))
    cut = sum(size for name, size in sizes.items() if name.startswith(head))
    rest = sum(sizes.values()) - inside - table - cut
    parts = (
        Part("embedding", 1, table, table),
        Part("decoder layers", count, inside, inside),
        Part("final norm and others", 1, rest, rest),
        Part("output layer" + (" (tied to the embedding)" if tied else ""), 1, cut, kept),
    )
    total = sum(sizes.values())
    stored = total - cut if tied else total
    prefix = _prefix_bytes(planned, count)
    return Inspection(
        parts=parts,
        tied=tied,
        checkpoint_bytes=checkpoint.bytes,
        bytes_before=4 * stored,
        bytes_after=4 * (total - cut + kept) + prefix,
        prefix_bytes=prefix,
        head_before=rows * hidden,
        head_after=len(planned.rows) * hidden,
        merge=None if checkpoint.adapter is None else _merge(checkpoint.adapter),
    )


def _merge(adapter: Adapter) -> Merge:
    ranks = sorted({change.a.shape[0] for change in adapter.changes.values()})
    return Merge(adapter.name, len(adapter.changes), tuple(ranks), len(adapter.whole))


def _prefix_bytes(planned: Plan, layers: int) -> int:
    """Room of the compiled prefix: keys and values of every layer, float32."""
    compiled, _ = split_prefix(planned.prompt.prefix_ids, planned.prompt.suffix_ids)
    config = planned.checkpoint.config
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return 4 * 2 * layers * int(kv_heads) * int(width) * len(compiled)
