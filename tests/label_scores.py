"""What labels that are read whole score by definition, and graphs whose trees are not theirs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from models import Untrimmed
from trimexport_runtime import Classifier, Manifest

Ids = tuple[int, ...]
Ints = npt.NDArray[np.int64]


def by_definition(judge: Untrimmed, manifest: Manifest, rows: list[Ids]) -> npt.NDArray[np.float64]:
    """By definition: every beginning of a label is a sequence of its own."""
    whole = [it for label in manifest.labels for it in label.sequences]
    scores = np.zeros((len(rows), len(whole)))
    for place, sequence in enumerate(whole):
        for end, token in enumerate(sequence):
            below = sorted({it[end] for it in whole if it[:end] == sequence[:end]})
            if len(below) == 1:
                continue
            logits = judge.logits_of([(*row, *sequence[:end]) for row in rows], below)
            logits = logits.astype(np.float64)
            share = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            scores[:, place] += share[:, below.index(token)]
    ends = np.cumsum([len(label.sequences) for label in manifest.labels])
    groups = np.split(scores, ends[:-1], axis=1)
    return np.stack([np.logaddexp.reduce(group, axis=1) for group in groups], axis=1)


def with_table(bundle: Path, copy: Path, table: Ints, other: Ints) -> Classifier:
    """The fp32 variant with other numbers in a table."""
    shutil.copytree(bundle, copy)
    graph = copy / "onnx" / "model.onnx"
    tensors = onnx.load(graph).graph.initializer  # large tables lie in the data file
    whole = [it for it in tensors if it.data_type == onnx.TensorProto.INT64]
    (name,) = [it.name for it in whole if np.array_equal(numpy_helper.to_array(it), table)]
    model = onnx.load(graph, load_external_data=False)
    (same,) = [it for it in model.graph.initializer if it.name == name]
    same.CopyFrom(numpy_helper.from_array(other, name))
    graph.write_bytes(model.SerializeToString())
    manifest = copy / "trimexport.json"
    text = manifest.read_text(encoding="utf-8")
    size = (bundle / "onnx" / "model.onnx").stat().st_size
    manifest.write_text(
        text.replace(f'"bytes": {size}', f'"bytes": {graph.stat().st_size}'), encoding="utf-8"
    )
    return Classifier.load(copy, variant="fp32")
