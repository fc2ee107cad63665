"""Compare a finished bundle with the model that it was made from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from trimexport_runtime import Manifest, check_files, read_manifest
from trimexport_runtime.backends import DEFAULT
from trimexport_runtime.bundle import Source

from .adapter import adapter_sha256, merged
from .bundle import save_report
from .checkpoint import Checkpoint, open_checkpoint
from .errors import CheckpointError, SpecError
from .hub import locate_adapter, locate_model
from .layerwise import LayerwiseModel
from .measuring import measure
from .memory import keep_large_blocks_apart, release
from .parity import ParityReport
from .progress import Progress, Silent
from .shipped import sample_texts
from .texts import Texts
from .tokenizer import load_tokenizer


def verify(
    bundle: Path,
    *,
    sample: Texts | None = None,
    model: str | None = None,
    adapter: str | None = None,
    backends: Sequence[str] = (DEFAULT,),
    optimum: str = sys.executable,
    progress: Progress | None = None,
) -> ParityReport:
    """Measure every variant of `bundle` and write `reports/parity.html` into it, if it can be.

    Args:
        sample: texts to compare on; None takes those that ship with the package.
        model: where the checkpoint is now, if it has moved since the build.
        adapter: where its adapter is now, if it has one that has moved.
        backends: what runs the variants, of `answering.BACKENDS`; what cannot run is reported as
            not run, with the reason.
        optimum: a Python that has optimum-onnx, for the backend of that name.

    Raises:
        CheckpointError: checkpoint or adapter is not there any more, or is another one.
        trimexport_runtime.TrimexportRuntimeError: the bundle is damaged.
    """
    progress = progress or Silent()
    keep_large_blocks_apart()
    manifest = read_manifest(bundle)
    check_files(bundle, manifest, hashes=True)
    checkpoint = checkpoint_of(manifest, model, adapter)
    tokenizer = load_tokenizer(checkpoint.directory)
    release()
    report = measure(
        bundle,
        LayerwiseModel(checkpoint),
        tokenizer,
        sample or Texts(tuple(sample_texts())),
        progress,
        backends,
        optimum,
    )
    try:
        save_report(report, bundle)
    except OSError as error:  # a bundle may lie where nothing can be written
        progress.say(f"{bundle}/reports/parity.html could not be written: {error.strerror}")
    return report


def checkpoint_of(manifest: Manifest, model: str | None, adapter: str | None = None) -> Checkpoint:
    """The checkpoint that the manifest names, or `model`, if it is the same one; with the adapter
    that the manifest names, or `adapter`, if it is the same one."""
    source = manifest.source
    name = model or source.directory or source.model
    if model is None and source.directory and not Path(source.directory).is_dir():
        raise CheckpointError(
            f"the bundle was made from {source.directory}, which is not there any more; name the "
            "checkpoint's directory with --model"
        )
    revision = source.revision if model is None else None
    checkpoint = open_checkpoint(locate_model(name, revision), name, revision)
    if checkpoint.config_sha256 != source.config_sha256:
        raise CheckpointError(
            f"{checkpoint.directory} is not the checkpoint that the bundle was made from "
            f"({source.model}): its config.json differs; name the right one with --model"
        )
    return _with_adapter(checkpoint, source, adapter)


def _with_adapter(checkpoint: Checkpoint, source: Source, given: str | None) -> Checkpoint:
    """The checkpoint with the adapter that the bundle was made with, if it was made with one."""
    if source.adapter is None:
        if given is not None:
            raise SpecError("the bundle was made without an adapter; drop --adapter")
        return checkpoint
    name = source.adapter if given is None else given
    if given is None and Path(name).is_absolute() and not Path(name).is_dir():
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
    return merged(checkpoint, directory, name)
