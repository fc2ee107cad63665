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
from .skeleton import make_skeleton, module_name
from .weights import Bindings, bind


def compile_graph(planned: Plan, model: LayerwiseModel, progress: Progress) -> ir.Model:
    """Cut the head, compile the prompt and trace; the graph is clean, its weights are bound to the
    checkpoint and not read."""
    skeleton = make_skeleton(planned.checkpoint, PREFIX_ATTENTION)
    prefix, lead = split_prefix(planned.prompt.prefix_ids, planned.prompt.suffix_ids)
    with progress.bar("compiling the prompt", 1) as tick:
        compile_prefix(skeleton.base_model, model.prefix_cache(prefix))
        tick(1)
    head = _cut_head(planned, skeleton, model.names)
    classifier = CompiledClassifier(
        skeleton.base_model,
        head,
        planned.verbalizer.group_sizes,
        len(prefix),
        lead,
        planned.prompt.suffix_ids,
    )
    bindings = _bindings(classifier, module_name(skeleton, skeleton.base_model) + ".", model.names)
    with progress.bar("tracing", 1) as tick:
        graph = trace(classifier)
        bind(graph, bindings, planned.checkpoint)
        passes.clean(graph)
        tick(1)
    return graph


def _cut_head(planned: Plan, skeleton: PreTrainedModel, names: Mapping[str, str]) -> TrimmedHead:
    """`head.trim_head`, with the rows read from the checkpoint instead of a module."""
    full = module_name(skeleton, skeleton.get_output_embeddings())
    tokens = planned.verbalizer.token_ids
    read = planned.checkpoint.read_rows
    bias = names.get(full + ".bias")
    return head_of(
        read(names[full + ".weight"], tokens),
        None if bias is None else read(bias, tokens),
        getattr(skeleton.config, "final_logit_softcapping", None),
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
