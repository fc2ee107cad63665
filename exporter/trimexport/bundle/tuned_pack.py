"""Read and write a pack as `calibrate` and `fit` do, where a bundle is a backbone with a pack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from trimexport.graph.task_inputs import CORRECTION, head_blocks, head_rows
from trimexport.progress import Progress
from trimexport_runtime import Manifest, check_files
from trimexport_runtime.backbone_manifest import read_backbone_manifest
from trimexport_runtime.pack import check_pack

from .pack_file import Arrays, read_arrays, read_pack_head, staged_pack, write_pack
from .rewrite import check_bundle
from .written_graph import require_written
from .written_head import Head

SHIFT = "shift"
"""What is added to a task's outputs last."""


def check_task(bundle: Path, manifest: Manifest, pack: Path | None, progress: Progress) -> None:
    """Compare every file of a bundle, or of a backbone and its pack, with the manifests.

    Raises:
        trimexport_runtime.TrimexportRuntimeError: one is missing, truncated or altered.
    """
    if pack is None:
        check_bundle(bundle, manifest, progress)
        return
    check_backbone(bundle, progress)
    check_pack(pack)


def check_backbone(directory: Path, progress: Progress) -> None:
    """Compare every file of a backbone with its manifest.

    Raises:
        trimexport_runtime.TrimexportRuntimeError: one is missing, truncated or altered.
    """
    known = read_backbone_manifest(directory)
    with progress.bar("checking the backbone", sum(it.bytes for it in known.files)) as tick:
        check_files(directory, known, hashes=True, advance=tick)


def write_calibration(pack: Path, manifest: Manifest, bias: npt.NDArray[np.float64]) -> None:
    """Replace a pack by itself with another bias, float64 [outputs], and the manifest that says so.

    Requires: a task whose score is a softmax, so that nothing else is added to its outputs.

    Raises:
        OutputError: it cannot be written; it is as it was.
    """
    backbone, said = read_pack_head(pack)
    arrays = {**read_arrays(pack), SHIFT: bias.astype(np.float32)}
    with staged_pack(pack) as part:
        write_pack(part, backbone, manifest, arrays, said)


def wide(arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Arrays as graphs take them, which know no float16."""
    return {
        name: array.astype(np.float32) if array.dtype == np.float16 else array
        for name, array in arrays.items()
    }


def task_head(arrays: Arrays) -> Head:
    """The head of a task: a row for each label token, or for each label once it was fitted."""
    weight, bias = head_rows(arrays)
    options = arrays["options"]
    rows = int(options[options < len(weight)].max()) + 1  # the others fill the last block
    return Head(weight[:rows], bias[:rows])


def with_head(arrays: Arrays, head: Head) -> Arrays:
    """A task's arrays with another head, which has a row for each label and reads each text's first
    pick. What followed the old head (soft-cap, sum over a label's words, calibration) is gone."""
    labels = len(head.bias)
    blocks = head_blocks(head.weight, head.bias)
    picks = len(arrays["picks"])
    each = np.arange(labels)
    return {
        **arrays,
        **blocks,
        "finished": np.zeros(blocks["head_bias"].shape, dtype=np.int64),
        "options": np.tile(each, (picks, 1)),
        "normalised": np.zeros((picks, 1), dtype=np.float32),
        "steps": each[None],
        "words": each[:, None],
        "plus": each,
        "minus": np.full(labels, labels),
        "scale": np.ones(1, dtype=np.float32),
        SHIFT: np.zeros(labels, dtype=np.float32),
    }


def give_task_hidden(model: onnx.ModelProto) -> str:
    """Make what a backbone's head reads an output of its graph, and return its name: float32
    [batch, picks, hidden].

    Raises:
        ExportError: the graph adds no correction to it.
    """
    name = str(correction_node(model).output[0])
    kind = onnx.TensorProto.FLOAT
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return name


def correction_node(model: onnx.ModelProto) -> onnx.NodeProto:
    """The node of a backbone's graph that adds the correction to what the head reads.

    Raises:
        ExportError: there is none.
    """
    adding = (node for node in model.graph.node if CORRECTION in node.input)
    node: onnx.NodeProto = require_written(next(adding, None), f'addition of "{CORRECTION}"')
    return node


def write_fitted(
    pack: Path,
    output: Path,
    manifest: Manifest,
    learned: tuple[str, ...],
    change: Callable[[Arrays], Arrays],
) -> None:
    """Write the pack `output`: `pack` with changed arrays and another manifest, and with the
    SHA-256 of the texts that its heads have `learned` from.

    Raises:
        OutputError: it cannot be written.
    """
    backbone, said = read_pack_head(pack)
    arrays = change(read_arrays(pack))
    with staged_pack(output) as part:
        write_pack(part, backbone, manifest, arrays, replace(said, learned=learned))
