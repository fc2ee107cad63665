"""Compare a finished bundle with the model that it was made from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from trimexport_runtime import Manifest, check_files, read_manifest
from trimexport_runtime.backends import DEFAULT

from .bundle import save_report
from .checkpoint import Checkpoint, open_checkpoint
from .errors import CheckpointError
from .hub import locate_model
from .layerwise import LayerwiseModel
from .measuring import measure
from .memory import keep_large_blocks_apart, release
from .parity import ParityReport, Texts
from .progress import Progress, Silent
from .shipped import sample_texts
from .tokenizer import load_tokenizer


def verify(
    bundle: Path,
    *,
    sample: Texts | None = None,
    model: str | None = None,
    backends: Sequence[str] = (DEFAULT,),
    optimum: str = sys.executable,
    progress: Progress | None = None,
) -> ParityReport:
    """Measure every variant of `bundle` and write `reports/parity.html` into it, if it can be.

    Args:
        sample: texts to compare on; None takes those that ship with the package.
        model: where the checkpoint is now, if it has moved since the build.
        backends: what runs the variants, of `answering.BACKENDS`; what cannot run is reported as
            not run, with the reason.
        optimum: a Python that has optimum-onnx, for the backend of that name.

    Raises:
        CheckpointError: the checkpoint is not there any more, or is another one.
        trimexport_runtime.TrimexportRuntimeError: the bundle is damaged.
    """
    progress = progress or Silent()
    keep_large_blocks_apart()
    manifest = read_manifest(bundle)
    check_files(bundle, manifest, hashes=True)
    checkpoint = checkpoint_of(manifest, model)
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


def checkpoint_of(manifest: Manifest, model: str | None) -> Checkpoint:
    """The checkpoint that the manifest names, or `model`, if it is the same one."""
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
    return checkpoint
