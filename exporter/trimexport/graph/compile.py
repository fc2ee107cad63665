"""The trimmed model with the prompt inside, as a graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir
import torch
from torch import nn

from trimexport.model.layerwise import LayerwiseModel, PrefixCache
from trimexport.planning import Plan
from trimexport.progress import Progress
from trimexport.source.checkpoint import Checkpoint
from trimexport.source.empty_model import body_of, make_skeleton, module_name
from trimexport.source.families import finish_of
from trimexport.spec import MEAN

from . import passes
from .backbone import Backbone
from .classifier import CompiledClassifier, split_prefix
from .prefix_attention import STEADY, compile_prefix
from .repeat_layers import keep_first_of_each, repeat_layers
from .streamed_weights import Bindings, bind
from .trace import trace


def compile_graph(
    planned: Plan, model: LayerwiseModel, progress: Progress, attention: str = STEADY
) -> ir.Model:
    """Cut the head, compile the prompt and trace; the graph is clean, its weights are bound to the
    checkpoint and not read.

    Args:
        attention: `prefix_attention.STEADY` for CPUs, `prefix_attention.PLAIN` for GPUs.
    """
    return compile_graphs(planned, model, progress, (attention,))[attention]


def compile_graphs(
    planned: Plan, model: LayerwiseModel, progress: Progress, attentions: Collection[str]
) -> dict[str, ir.Model]:
    """Compile as `compile_graph` does, once for each kind of attention; the prefix runs once."""
    prefix_ids, lead = split_prefix(planned.prompt.prefix_ids, planned.prompt.suffix_ids)
    with progress.bar("compiling the prompt", 1) as tick:
        prefix = model.prefix_cache(prefix_ids)
        tick(1)
    graphs = {}
    with progress.bar("tracing", len(attentions)) as tick:
        for attention in attentions:
            graph = _trace(planned, model, prefix, lead, attention)
            passes.clean(graph)
            passes.optimise(graph, every_token=planned.spec.pool == MEAN)
            graphs[attention] = graph
            tick(1)
    return graphs


def compile_backbone(
    checkpoint: Checkpoint, model: LayerwiseModel, prefix: PrefixCache, progress: Progress
) -> ir.Model:
    """Trace a model without a task, whose graph takes one as inputs (see `task_inputs`); clean and
    bound as `compile_graph`'s.

    Args:
        prefix: of any tokens, for what its layers' keys look like.
    """
    layers = [(len(key), key.shape[2]) for key in prefix.keys]
    skeleton = make_skeleton(checkpoint, STEADY)
    body = body_of(skeleton)
    repetition = keep_first_of_each(body, skeleton.config)
    first = [layers[repetition.kinds.index(kind)] for kind in range(max(repetition.kinds) + 1)]
    backbone = Backbone(body, finish_of(skeleton), first, repetition.width)
    bindings = _bindings(backbone, module_name(skeleton, body) + ".", model.names)
    with progress.bar("tracing", 1) as tick:
        graph = trace(backbone)
        repeat_layers(graph, "body.", repetition)
        bind(graph, bindings, checkpoint)
        passes.clean(graph)
        passes.optimise(graph)
        tick(1)
    return graph


def _trace(
    planned: Plan,
    model: LayerwiseModel,
    prefix: PrefixCache,
    lead: tuple[int, ...],
    attention: str,
) -> ir.Model:
    """The graph as the tracer leaves it, with every layer and its weights bound."""
    skeleton = make_skeleton(planned.checkpoint, attention)
    body = body_of(skeleton)
    compile_prefix(body, prefix, attention)
    head = model.cut_head(planned.rows)
    suffix = planned.prompt.suffix_ids
    classifier = CompiledClassifier(
        body,
        head,
        planned.group_sizes,
        prefix.length,
        lead,
        suffix,
        planned.trie,
        planned.score,
        mean=planned.spec.pool == MEAN,
    )
    head_values = {f"head.{name}": value for name, value in head.named_parameters()}
    body_name = module_name(skeleton, body) + "."
    bindings = _bindings(classifier, body_name, model.names, head_values)
    repetition = keep_first_of_each(body, skeleton.config)
    graph = trace(classifier)
    repeat_layers(graph, "body.", repetition)
    bind(graph, bindings, planned.checkpoint)
    return graph


def _bindings(
    module: nn.Module,
    body: str,
    names: Mapping[str, str],
    values: Mapping[str, torch.Tensor] | None = None,
) -> Bindings:
    """The module's body streams from the checkpoint; its buffers are known, and so are `values`."""
    return Bindings(
        streamed={
            f"body.{name.removeprefix(body)}": source
            for name, source in names.items()
            if name.startswith(body)
        },
        values={**dict(module.named_buffers()), **(values or {})},
    )
