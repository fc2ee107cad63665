"""The backends that answer the same texts, a row of the parity table for each variant on each."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimexport.bundle.part_by_part import cut, feed_of, run_by_parts
from trimexport.bundle.tuned_pack import wide
from trimexport.progress import Progress
from trimexport.records import short
from trimexport_runtime import Classifier, Manifest, TrimexportRuntimeError
from trimexport_runtime.backends import DEFAULT, PROVIDERS
from trimexport_runtime.batching import batches, rows_within, token_budget
from trimexport_runtime.bundle import FOR_TENSORRT, Variant
from trimexport_runtime.choice import choose, runs
from trimexport_runtime.inputs import Input
from trimexport_runtime.pack import load_pack
from trimexport_runtime.prediction import no_number
from trimexport_runtime.tokenize import Encoded

from .report import NotRun

PYTORCH, OPTIMUM = "pytorch", "optimum"
BACKENDS = (PYTORCH, *PROVIDERS, OPTIMUM)
TRIMMED = "trimmed"  # the row of the cut head in PyTorch, which is no variant
WHOLE_BYTES = 2**29  # the largest variant that is loaded whole on the CPU
_WORKER = Path(__file__).with_name("optimum_worker.py")

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RowInputs:
    """The input of every row.

    `encoded` are the texts as the bundle tokenises them, `trimmed` the logits of the cut head in
    PyTorch, float32 [texts, outputs], and `optimum` is a Python that has optimum-onnx. Where there
    is a `pack`, `bundle` is its backbone and `manifest` the pack's.
    """

    bundle: Path
    manifest: Manifest
    texts: tuple[Input, ...]
    encoded: tuple[Encoded, ...]
    trimmed: Logits
    optimum: str
    pack: Path | None = None


def rows(manifest: Manifest, backends: Sequence[str]) -> list[tuple[str, str]]:
    """The variant and the backend of each row, in the order of `BACKENDS`. The variant is an empty
    string where the bundle has none for that backend."""
    pairs = []
    for backend in BACKENDS:
        if backend in backends:
            names = _names_for(backend, manifest) or [""]
            pairs += [(name, backend) for name in names]
    return pairs


def _names_for(backend: str, manifest: Manifest) -> list[str]:
    """The variants that a backend should run."""
    if backend == PYTORCH:
        return [TRIMMED]
    if backend == OPTIMUM:
        return [variant.name for variant in manifest.variants]
    if backend == "tensorrt":  # variants without an engine are rows too
        names = (variant.name for variant in manifest.variants)
        return [name for name in names if name.startswith(FOR_TENSORRT)]
    return [variant.name for variant in manifest.variants if runs(variant, backend)]


def run_row(inputs: RowInputs, name: str, backend: str, progress: Progress) -> Logits | NotRun:
    """The logits of a variant on a backend, float32 [texts, outputs], all of them finite, or why
    there are none.

    Raises:
        TrimexportRuntimeError: a variant cannot run on the CPU, where it must.
    """
    if backend == PYTORCH:
        logits: Logits | NotRun = inputs.trimmed
    elif backend == OPTIMUM:
        logits = _run_in_optimum(inputs, name, progress)
    else:
        logits = _run_in_runtime(inputs, name, backend, progress)
    if isinstance(logits, NotRun) or (wrong := _first_wrong(logits)) is None:
        return logits
    what = "a logit is no finite number"
    if backend != PYTORCH:
        what = str(no_number(inputs.manifest.variant(name)))
    reason = f"text {wrong + 1} ({short(inputs.texts[wrong])}): {what}"
    return NotRun(name, backend, reason, failed=True)


def _first_wrong(logits: Logits) -> int | None:
    """The place of the first text one of whose logits is no finite number."""
    places = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    return int(places[0]) if len(places) else None


def _run_in_runtime(
    inputs: RowInputs, name: str, backend: str, progress: Progress
) -> Logits | NotRun:
    """The logits that the runtime gives, or the reason why it gives none.

    Raises:
        TrimexportRuntimeError: see `run_row`.
    """
    try:
        variant = choose(inputs.manifest, name or None, backend)
        if backend == DEFAULT and variant.bytes > WHOLE_BYTES:
            return _run_by_parts(inputs, variant, progress)
        return _run_whole(inputs, variant.name, backend, progress)
    except (TrimexportRuntimeError, OSError) as error:
        if backend == DEFAULT:
            raise
        return NotRun(name, backend, str(error))


def _run_whole(inputs: RowInputs, variant: str, backend: str, progress: Progress) -> Logits:
    """The logits of a variant as the runtime gives them."""
    texts = inputs.encoded
    where = "" if backend == DEFAULT else f" on {backend}"
    logits = np.empty((len(texts), inputs.manifest.outputs), dtype=np.float32)
    with progress.bar(f"variant {variant}{where}", len(texts)) as tick:
        classifier = Classifier.load(
            inputs.bundle, variant=variant, backend=backend, task=inputs.pack
        )
        for group in batches([len(text.ids) for text in texts], classifier.most_rows):
            logits[group] = classifier.run([texts[index] for index in group])
            tick(len(group))
        return logits


def _run_by_parts(inputs: RowInputs, variant: Variant, progress: Progress) -> Logits:
    """The logits of a variant whose weights should not all be in memory: the runtime's batches go
    through its graph a part at a time."""
    manifest, texts = inputs.manifest, inputs.encoded
    most_rows = rows_within(token_budget(variant.bytes))
    groups = batches([len(text.ids) for text in texts], most_rows)
    task = {} if inputs.pack is None else wide(load_pack(inputs.pack, variant.name)[1])
    feeds = [{**feed_of([texts[index].ids for index in group]), **task} for group in groups]
    pieces = cut(inputs.bundle / variant.graph)
    logits = np.empty((len(texts), manifest.outputs), dtype=np.float32)
    with progress.bar(f"variant {variant.name}, part by part", len(pieces.parts)) as tick:
        for group, part in zip(groups, run_by_parts(pieces, feeds, tick), strict=True):
            logits[group] = part
    return logits


def _run_in_optimum(inputs: RowInputs, name: str, progress: Progress) -> Logits | NotRun:
    """The logits that Optimum's `ORTModelForSequenceClassification` gives for the bundle's files,
    tokenizer included, in a Python environment of its own."""
    if not all(isinstance(text, str) for text in inputs.texts):
        reason = "it is asked with single texts, and the bundle's prompt takes several"
        return NotRun(name, OPTIMUM, reason)
    variant = inputs.manifest.variant(name)
    request = {
        "bundle": str(inputs.bundle.resolve()),
        "graph": variant.graph,
        "texts": list(inputs.texts),
    }
    with progress.bar(f"variant {name} in Optimum", 1) as tick:
        try:
            run = subprocess.run(
                [inputs.optimum, "-P", str(_WORKER)],
                input=json.dumps(request, allow_nan=False),
                capture_output=True,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            return NotRun(name, OPTIMUM, f"{inputs.optimum} cannot be run ({error.strerror})")
        tick(1)
    if run.returncode:
        lines = run.stderr.strip().splitlines() or ["it says no more"]
        return NotRun(name, OPTIMUM, f"{inputs.optimum} failed: {lines[-1]}")
    try:
        reply = json.loads(run.stdout)
    except ValueError:
        return NotRun(name, OPTIMUM, f"{inputs.optimum} gave no answer; name a Python")
    if "error" in reply:
        return NotRun(name, OPTIMUM, reply["error"])
    return np.array(reply["logits"], dtype=np.float32)
