"""The sizes of a model before and after the cut: layers, parameters and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from torch import nn
from transformers import PreTrainedModel

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
    """A part of the model: how many modules it has, and how many parameters before and after the
    cut."""

    name: str
    modules: int
    before: int
    after: int


@dataclass(frozen=True)
class Merge:
    """An adapter's changes: how many matrices, by which ranks, and how many tensors it replaces;
    `trained` is peft's name of the method by which its virtual tokens were trained."""

    adapter: str
    matrices: int
    ranks: tuple[int, ...]
    replaced: int
    trained: str | None = None


@dataclass(frozen=True)
class Inspection:
    """What a build would cut.

    Bytes are of weights: `checkpoint_bytes` as they lie on disk, the others in float32.
    `bytes_after` includes the compiled prefix, `prefix_bytes`. `head_before` and `head_after` count
    multiplications of the output layer per text.
    """

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
    """Count what a build would cut, from the headers of the checkpoint's files; no weight is
    read."""
    checkpoint = planned.checkpoint
    model = make_skeleton(checkpoint, reference_attention(checkpoint.config))
    names = parameter_names(model, checkpoint)
    sizes = {name: prod(checkpoint.tensors[source].shape) for name, source in names.items()}
    embedding = names[module_name(model, model.get_input_embeddings()) + ".weight"]
    head = names[module_name(model, output_layer(model)) + ".weight"]
    tied = head == embedding
    rows, hidden = checkpoint.tensors[head].shape
    parts = _parts(model, sizes, tied, len(planned.rows) * (hidden + 1))
    *others, output = parts
    before = sum(part.before for part in others) + (0 if tied else output.before)
    prefix = _prefix_bytes(planned, len(layers_of(body_of(model))))
    return Inspection(
        parts=parts,
        tied=tied,
        checkpoint_bytes=checkpoint.bytes,
        bytes_before=4 * before,
        bytes_after=4 * sum(part.after for part in parts) + prefix,
        prefix_bytes=prefix,
        head_before=rows * hidden,
        head_after=len(planned.rows) * hidden,
        merge=None if checkpoint.adapter is None else _merge(checkpoint.adapter),
    )


def _parts(
    model: PreTrainedModel, sizes: Mapping[str, int], tied: bool, kept: int
) -> tuple[Part, ...]:
    """The model's parts, the output layer last.

    Args:
        sizes: the number of values of each parameter.
        kept: how many parameters the output layer has after the cut.
    """
    layers = layers_of(body_of(model))

    def size_of(module: nn.Module) -> int:
        start = module_name(model, module) + "."
        return sum(size for name, size in sizes.items() if name.startswith(start))

    inside, table = size_of(layers), size_of(model.get_input_embeddings())
    output = size_of(output_layer(model))
    rest = sum(sizes.values()) - inside - table - output
    return (
        Part("embedding", 1, table, table),
        Part("decoder layers", len(layers), inside, inside),
        Part("final norm and others", 1, rest, rest),
        Part("output layer" + (" (tied to the embedding)" if tied else ""), 1, output, kept),
    )


def _merge(adapter: Adapter) -> Merge:
    ranks = sorted({change.a.shape[0] for change in adapter.changes.values()})
    trained = None if adapter.prompt is None else adapter.prompt.kind
    return Merge(adapter.name, len(adapter.changes), tuple(ranks), len(adapter.whole), trained)


def _prefix_bytes(planned: Plan, layers: int) -> int:
    """The size of the compiled prefix: the keys and values of every layer, in float32."""
    compiled, _ = split_prefix(planned.prompt.prefix_ids, planned.prompt.suffix_ids)
    config = planned.checkpoint.config
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return (
        4
        * 2
        * layers
        * int(kv_heads)
        * int(width)
        * (planned.checkpoint.virtual_tokens + len(compiled))
    )
