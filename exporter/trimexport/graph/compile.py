"""The trimmed model with the prompt inside, as a graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from trimexport.model.layerwise import LayerwiseModel, PrefixCache
from trimexport.planning import Plan
from trimexport.progress import Progress
from trimexport.source.empty_model import body_of, make_skeleton, module_name

from . import passes
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
            passes.optimise(graph)
            graphs[attention] = graph
            tick(1)
    return graphs


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
    )
    bindings = _bindings(classifier, module_name(skeleton, body) + ".", model.names)
    repetition = keep_first_of_each(body, skeleton.config)
    graph = trace(classifier)
    repeat_layers(graph, "body.", repetition)
    bind(graph, bindings, planned.checkpoint)
    return graph


def _bindings(classifier: CompiledClassifier, body: str, names: Mapping[str, str]) -> Bindings:
    """The classifier's body streams from the checkpoint; head, prompt and buffers are known."""
    head = {f"head.{name}": value for name, value in classifier.head.named_parameters()}
    return Bindings(
        streamed={
            f"body.{name.removeprefix(body)}": source
            for name, source in names.items()
            if name.startswith(body)
        },
        values={**dict(classifier.named_buffers()), **head},
    )
