"""Compare a finished bundle with the model that it was made from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from trimexport_runtime import check_files, read_manifest
from trimexport_runtime.backends import DEFAULT

from .memory import release
from .model.layerwise import LayerwiseModel
from .parity.measure import measure
from .parity.record import save_report
from .parity.report import ParityReport
from .progress import Progress, Silent
from .prompt.tokenizer import load_tokenizer
from .prompt.tokenizer_choice import known_tokens, tokenizer_of
from .records import combined
from .source.of_bundle import checkpoint_of
from .source.shipped import sample_texts
from .texts import Texts


def verify(
    bundle: Path,
    *,
    sample: Texts | None = None,
    model: str | None = None,
    adapter: str | None = None,
    tokenizer: str | None = None,
    backends: Sequence[str] = (DEFAULT,),
    optimum: str = sys.executable,
    progress: Progress | None = None,
) -> ParityReport:
    """Measure every variant of `bundle` and write `reports/parity.html` into it, if it can be.

    Args:
        sample: texts to compare on; None takes those that ship with the package.
        model: where the checkpoint is now, if it has moved since the build.
        adapter: where its adapter is now, if it has one that has moved.
        tokenizer: where the tokenizer is now, if one was named that has moved.
        backends: what runs the variants, of `parity.backends.BACKENDS`; what cannot run is
            reported as not run, with the reason.
        optimum: a Python that has optimum-onnx, for the backend of that name.

    Raises:
        CheckpointError: checkpoint, adapter or tokenizer is not there any more, or is another one.
        trimexport_runtime.TrimexportRuntimeError: the bundle is damaged.
    """
    progress = progress or Silent()
    manifest = read_manifest(bundle)
    check_files(bundle, manifest, hashes=True)
    checkpoint = checkpoint_of(manifest, model, adapter)
    place = tokenizer_of(manifest.source, checkpoint, tokenizer)
    loaded, _ = known_tokens(load_tokenizer(place), place, checkpoint)
    release()
    report = measure(
        bundle,
        LayerwiseModel(checkpoint, manifest.prompt.mean_behind),
        loaded,
        sample or Texts(combined(sample_texts(), manifest.prompt.places)),
        progress,
        backends,
        optimum,
    )
    try:
        save_report(report, bundle)
    except OSError as error:  # a bundle may lie where nothing can be written
        progress.say(f"{bundle}/reports/parity.html could not be written: {error.strerror}")
    return report
