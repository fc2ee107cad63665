"""Read and write a pack as `calibrate` and `fit` do, where a bundle is a backbone with a pack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from trimexport.progress import Progress
from trimexport_runtime import Manifest, check_files, read_manifest
from trimexport_runtime.backbone import task_pack
from trimexport_runtime.backbone_manifest import read_backbone_manifest
from trimexport_runtime.bundle import Calibration
from trimexport_runtime.pack import check_pack

from .pack_file import read_arrays, read_pack_head, staged_pack, write_pack
from .rewrite import check_bundle

SHIFT = "shift"
"""What is added to a task's outputs last."""


def read_task(bundle: Path, pack: Path | None) -> Manifest:
    """The manifest of a bundle, or that of a pack whose backbone `bundle` is.

    Raises:
        trimexport_runtime.TrimexportRuntimeError: one of them is not there or damaged, or the pack
            is of another backbone.
    """
    return read_manifest(bundle) if pack is None else task_pack(pack, bundle).manifest


def check_task(bundle: Path, manifest: Manifest, pack: Path | None, progress: Progress) -> None:
    """Compare every file of a bundle, or of a backbone and its pack, with the manifests.

    Raises:
        trimexport_runtime.TrimexportRuntimeError: one is missing, truncated or altered.
    """
    if pack is None:
        check_bundle(bundle, manifest, progress)
        return
    known = read_backbone_manifest(bundle)
    with progress.bar("checking the backbone", sum(it.bytes for it in known.files)) as tick:
        check_files(bundle, known, hashes=True, advance=tick)
    check_pack(pack)


def write_calibration(pack: Path, manifest: Manifest, calibration: Calibration | None) -> Manifest:
    """Replace a pack by itself with another bias, or with none, and return its manifest.

    Requires: a task whose score is a softmax, so that nothing else is added to its outputs.

    Raises:
        OutputError: it cannot be written; it is as it was.
    """
    changed = replace(manifest, calibration=calibration)
    bias = np.zeros(manifest.outputs) if calibration is None else np.array(calibration.bias)
    backbone, said = read_pack_head(pack)
    arrays = {**read_arrays(pack), SHIFT: bias.astype(np.float32)}
    with staged_pack(pack) as part:
        write_pack(part, backbone, changed, arrays, said)
    return changed
