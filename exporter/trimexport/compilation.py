"""The trimmed model with the prompt inside, as a graph."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from transformers import PreTrainedModel

from . import passes
from .attention import NAME as PREFIX_ATTENTION
from .attention import compile_prefix
from .graph import CompiledClassifier, split_prefix, trace
from .head import TrimmedHead, head_of
from .layerwise import LayerwiseModel
from .planning import Plan
from .progress import Progress
from .repetition import keep_first_of_each, repeat_layers
from .skeleton import body_of, make_skeleton, module_name, output_layer
from .weights import Bindings, bind


def compile_graph(planned: Plan, model: LayerwiseModel, progress: Progress) -> ir.Model:
    """Cut the head, compile the prompt and trace; the graph is clean, its weights are bound to the
    checkpoint and not read."""
    skeleton = make_skeleton(planned.checkpoint, PREFIX_ATTENTION)
    body = body_of(skeleton)
    prefix, lead = split_prefix(planned.prompt.prefix_ids, planned.prompt.suffix_ids)
    with progress.bar("compiling the prompt", 1) as tick:
        compile_prefix(body, model.prefix_cache(prefix))
        tick(1)
    head = _cut_head(planned, skeleton, model.names)
    classifier = CompiledClassifier(
        body,
        head,
        planned.group_sizes,
        len(prefix),
        lead,
        planned.prompt.suffix_ids,
    )
    bindings = _bindings(classifier, module_name(skeleton, body) + ".", model.names)
    repetition = keep_first_of_each(body, skeleton.config)
    with progress.bar("tracing", 1) as tick:
        graph = trace(classifier)
        repeat_layers(graph, "body.", repetition)
        bind(graph, bindings, planned.checkpoint)
        passes.clean(graph)
        passes.optimise(graph)
        tick(1)
    return graph


def _cut_head(planned: Plan, skeleton: PreTrainedModel, names: Mapping[str, str]) -> TrimmedHead:
    """`head.trim_head`, with the rows read from the checkpoint instead of a module."""
    full = module_name(skeleton, output_layer(skeleton))
    rows = planned.rows
    read = planned.checkpoint.read_rows
    bias = names.get(full + ".bias")
    return head_of(
        read(names[full + ".weight"], rows),
        None if bias is None else read(bias, rows),
        planned.checkpoint.softcap,
    )


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
