"""Run a written graph a part at a time, so that its weights are never all in memory.

ONNX Runtime holds the weights of a graph that it has loaded, often twice while it packs them. Here
the graph is cut into parts with a limited share of the weights each; every batch goes through one
part before the next is loaded, as they go through the layers in `layerwise`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from trimexport_runtime.backends import CPU_PROVIDER
from trimexport_runtime.backends.onnxruntime import session_options
from trimexport_runtime.batching import pad
from trimexport_runtime.bundle import OUTPUT

# The most weights in a part. A larger tensor makes a part of its own: an embedding, whose rows are
# looked up in its file and not loaded.
PART_BYTES = 128 * 2**20

Feed = dict[str, npt.NDArray[np.generic]]


def feed_of(rows: Sequence[npt.NDArray[np.int64]]) -> Feed:
    """The graph's inputs for a batch of texts' token ids, padded."""
    ids, mask = pad(rows)
    return {"input_ids": ids, "attention_mask": mask}


@dataclass(frozen=True)
class _Part:
    """Some nodes of the graph, the values that they read from other parts, and the values that
    later parts read from them."""

    nodes: tuple[onnx.NodeProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class CutGraph:
    """A variant's graph and its parts, in the order of its nodes, up to the one that makes
    `output`. Its data lies in `folder`."""

    model: onnx.ModelProto
    output: str
    parts: tuple[_Part, ...]
    folder: Path


def cut(graph: Path, output: str = OUTPUT) -> CutGraph:
    """Cut a variant's `.onnx` file, which has its data beside it.

    Args:
        output: the value that is wanted, float32.
    """
    # The tracer leaves out some values' types, which a cut needs.
    model = onnx.shape_inference.infer_shapes(onnx.load(graph, load_external_data=False))
    return CutGraph(model, output, tuple(_parts(model, output)), graph.parent)


def run_by_parts(
    graph: CutGraph, feeds: Sequence[Feed], progress: Callable[[int], None] = lambda done: None
) -> list[npt.NDArray[np.float32]]:
    """The wanted value for every batch: the logits, float32 [batch, labels], unless it was cut for
    another.

    Args:
        feeds: the graph's inputs, batch by batch.
        progress: called with the number of parts done since the last call.
    """
    known = [dict(feed) for feed in feeds]
    for place, part in enumerate(graph.parts):
        session = _session(graph, part)
        later = {name for rest in graph.parts[place + 1 :] for name in rest.inputs}
        for values in known:
            results = session.run(list(part.outputs), {name: values[name] for name in part.inputs})
            values.update(zip(part.outputs, results, strict=True))
            for name in [name for name in values if name not in (*later, graph.output)]:
                del values[name]
        del session
        progress(1)
    return [np.asarray(values[graph.output], dtype=np.float32) for values in known]


def _parts(model: onnx.ModelProto, output: str) -> list[_Part]:
    """The parts of a graph, in the order of its nodes, up to the one that makes `output`."""
    groups = list(_groups(model))
    weights = {item.name for item in model.graph.initializer}
    parts = []
    for place, group in enumerate(groups):
        made = {name for node in group for name in node.output}
        read = dict.fromkeys(name for node in group for name in node.input if name)
        after = {name for rest in groups[place + 1 :] for node in rest for name in node.input}
        parts.append(
            _Part(
                nodes=tuple(group),
                inputs=tuple(n for n in read if n not in made and n not in weights),
                outputs=tuple(n for n in dict.fromkeys(made) if n in after or n == output),
            )
        )
        if output in made:
            break
    return parts


def _groups(model: onnx.ModelProto) -> Iterator[list[onnx.NodeProto]]:
    """The nodes in their order, in groups that read at most PART_BYTES of weights each, or one
    larger tensor."""
    sizes = {item.name: _bytes(item) for item in model.graph.initializer}
    group: list[onnx.NodeProto] = []
    held: set[str] = set()
    for node in model.graph.node:
        more = {name for name in node.input if name in sizes} - held
        if group and sum(sizes[name] for name in held | more) > PART_BYTES:
            yield group
            group, held = [], set()
        group.append(node)
        held |= more
    yield group


def _bytes(tensor: onnx.TensorProto) -> int:
    """The size of a tensor's data, wherever it lies."""
    external = {entry.key: entry.value for entry in tensor.external_data}
    return int(external.get("length", 0)) or tensor.ByteSize()


def _session(whole: CutGraph, part: _Part) -> ort.InferenceSession:
    """Load one part."""
    model = whole.model
    kinds = {item.name: item.type for item in [*model.graph.value_info, *model.graph.input]}
    kinds |= {item.name: item.type for item in model.graph.output}
    used = {name for node in part.nodes for name in node.input}
    graph = onnx.helper.make_graph(
        part.nodes,
        "part",
        [_described(name, kinds) for name in part.inputs],
        [_described(name, kinds) for name in part.outputs],
        [item for item in model.graph.initializer if item.name in used],
    )
    part_model = onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    options = session_options()
    options.enable_cpu_mem_arena = False  # it takes twice what is asked, and keeps it
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(whole.folder)
    )
    return ort.InferenceSession(part_model.SerializeToString(), options, providers=[CPU_PROVIDER])


def _described(name: str, kinds: dict[str, onnx.TypeProto]) -> onnx.ValueInfoProto:
    """A value's name and element type, without dimensions."""
    kind = kinds[name].tensor_type.elem_type
    return onnx.helper.make_tensor_value_info(name, kind, None)
