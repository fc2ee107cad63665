"""The checkpoint that a bundle was made from."""

from __future__ import annotations

import os
from pathlib import Path

from trimexport.errors import CheckpointError, SpecError
from trimexport_runtime import Manifest
from trimexport_runtime.bundle import Source

from .adapter import merge_adapter
from .checkpoint import Checkpoint, open_checkpoint
from .depth import cut_layers
from .gguf_place import is_gguf
from .hub import locate_adapter, locate_model
from .low_rank import adapter_sha256


def checkpoint_of(manifest: Manifest, model: str | None, adapter: str | None = None) -> Checkpoint:
    """Open the checkpoint that a bundle was made from, with the adapter that was merged into it and
    as many layers as the bundle has.

    Args:
        model: where the checkpoint is now; None takes the place that the manifest names.
        adapter: where the adapter is now; None takes the place that the manifest names.

    Raises:
        CheckpointError: checkpoint or adapter is not there, or is not the bundle's.
        SpecError: an adapter is given, and the bundle was made without one.
    """
    source = manifest.source
    name = model or source.directory or source.model
    if model is None and source.directory and not os.path.exists(source.directory):
        raise CheckpointError(
            f"the bundle was made from {source.directory}, which is not there any more; name the "
            "checkpoint's place with --model"
        )
    revision = source.revision if model is None else None
    checkpoint = open_checkpoint(locate_model(name, revision), name, revision)
    if checkpoint.config_sha256 != source.config_sha256:
        what = "file" if is_gguf(checkpoint.directory) else "config.json"
        raise CheckpointError(
            f"{checkpoint.directory} is not the checkpoint that the bundle was made from "
            f"({source.model}): its {what} differs; name the right one with --model"
        )
    return cut_layers(_with_adapter(checkpoint, source, adapter), source.layers)


def _with_adapter(checkpoint: Checkpoint, source: Source, given: str | None) -> Checkpoint:
    """The checkpoint with the bundle's adapter merged into it, if it has one; `given` is where
    that is now."""
    if source.adapter is None:
        if given is not None:
            raise SpecError("the bundle was made without an adapter; drop --adapter")
        return checkpoint
    name = source.adapter if given is None else given
    if given is None and Path(name).is_absolute() and not os.path.isdir(name):
        raise CheckpointError(
            f"the bundle was made with the adapter {name}, which is not there any more; name its "
            "directory with --adapter"
        )
    directory = locate_adapter(name)
    if adapter_sha256(directory) != source.adapter_sha256:
        raise CheckpointError(
            f"{directory} is not the adapter that the bundle was made with ({source.adapter}): its "
            "files differ; name the right one with --adapter"
        )
    return merge_adapter(checkpoint, directory, name)
