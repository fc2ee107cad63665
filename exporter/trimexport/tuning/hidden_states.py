"""The last hidden states of texts, from a bundle's graph. No PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from trimexport.bundle.pack_questions import pack_question_head
from trimexport.bundle.part_by_part import Feed, feed_of
from trimexport.bundle.question_heads import read_question_head, tree_of_bundle
from trimexport.bundle.tuned_pack import give_task_hidden, task_head, wide
from trimexport.bundle.written_graph import load_graph
from trimexport.bundle.written_head import Head, give_hidden, read_head
from trimexport.progress import Progress
from trimexport.records import one_line, short
from trimexport_runtime import BundleError, InputError, Manifest
from trimexport_runtime.backends import CPU_PROVIDER
from trimexport_runtime.backends.onnxruntime import session_options
from trimexport_runtime.batching import batches, rows_within, token_budget
from trimexport_runtime.bundle import OUTPUT, Variant
from trimexport_runtime.inputs import Input
from trimexport_runtime.pack import load_pack
from trimexport_runtime.prediction import no_number
from trimexport_runtime.questions import place_of
from trimexport_runtime.tokenize import Encoded, TextEncoder

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class States:
    """What a variant's graph makes of texts.

    `hidden` is what its head reads at each text's answer, float32 [texts, hidden]; `logits` are as
    the bundle gives them, float32 [texts, labels]; `head` is the head itself; `rows` is how many
    rows of hidden states the graph computes for each text.
    """

    hidden: Rows
    logits: Rows
    head: Head
    rows: int


def read_states(
    bundle: Path,
    manifest: Manifest,
    variant: Variant,
    texts: Sequence[Input],
    progress: Progress,
    question: str | None = None,
    pack: Path | None = None,
) -> States:
    """Run texts through a variant, batched as the runtime does it.

    Args:
        question: whose answer's place and head are meant, where the bundle has several.
        pack: the task, where `bundle` is a backbone; `manifest` is then the pack's.

    Raises:
        BundleError: ONNX Runtime cannot load the graph.
        InputError: a text cannot be classified, or the answer to it is no finite number.
        ExportError: the graph has no head.
    """
    encoder = TextEncoder.load(bundle, manifest)
    encoded = [_encode(encoder, text) for text in texts]
    model = load_graph(bundle / variant.graph)
    task: Feed = {}
    if pack is None:
        place, head = _place_and_head(model, manifest, question)
        name = give_hidden(model)
    else:
        task = wide(load_pack(pack, variant.name)[1])
        name = give_task_hidden(model)
        place, head = _task_place_and_head(task, manifest, question)
    session = _session(model.SerializeToString(), bundle / variant.graph)
    hidden = np.empty((len(texts), head.weight.shape[1]), dtype=np.float32)
    logits = np.empty((len(texts), manifest.outputs), dtype=np.float32)
    rows = 0
    most_rows = rows_within(token_budget(variant.bytes))
    with progress.bar(f"reading {len(texts):,} texts with {variant.name}", len(texts)) as tick:
        for batch in batches([len(text.ids) for text in encoded], most_rows):
            feed = {**feed_of([encoded[index].ids for index in batch]), **task}
            found, logits[batch] = session.run([name, OUTPUT], feed)
            states = found.reshape(-1, found.shape[-1])
            rows = len(states) // len(batch)
            hidden[batch] = states[place::rows]
            tick(len(batch))
    wrong = np.flatnonzero(~np.isfinite(hidden).all(axis=1) | ~np.isfinite(logits).all(axis=1))
    if len(wrong):
        raise InputError(f"the text {short(texts[wrong[0]])}: {no_number(variant)}")
    return States(hidden, logits, head, rows)


def _place_and_head(
    model: onnx.ModelProto, manifest: Manifest, question: str | None
) -> tuple[int, Head]:
    """Which of a text's rows of hidden states is the answer's, and the head that reads it: the one
    that was fitted to the question before, or that of all label words."""
    if question is None:
        return 0, read_head(model)
    place = place_of(manifest, question)
    fitted = read_question_head(model, place)
    return tree_of_bundle(manifest).answers[place], read_head(model) if fitted is None else fitted


def _task_place_and_head(task: Feed, manifest: Manifest, question: str | None) -> tuple[int, Head]:
    """The same of a pack's arrays."""
    if question is None:
        return 0, task_head(task)
    return pack_question_head(task, manifest, place_of(manifest, question))


def _encode(encoder: TextEncoder, text: Input) -> Encoded:
    try:
        return encoder.encode(text)
    except InputError as error:
        raise InputError(f"the text {one_line(text)[:40]!r}: {error}") from None


def _session(graph: bytes, path: Path) -> Any:
    """A session of a graph in memory whose data files are those beside `path`."""
    options = session_options()
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(path.parent)
    )
    try:
        return ort.InferenceSession(graph, options, providers=[CPU_PROVIDER])
    except Exception as error:  # its exceptions share no base of their own
        raise BundleError(
            f"{path} cannot be loaded by ONNX Runtime {ort.__version__} ({error}); check the "
            "bundle with `trimexport-run info --check`"
        ) from None
