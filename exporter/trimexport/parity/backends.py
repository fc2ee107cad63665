"""How each backend answers the same texts: the rows of a parity table."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimexport.progress import Progress
from trimexport_runtime import Classifier, Manifest, TrimexportRuntimeError
from trimexport_runtime.backends import DEFAULT, PROVIDERS
from trimexport_runtime.backends.onnxruntime import session_entries
from trimexport_runtime.batching import batches, pad, rows_within, token_budget
from trimexport_runtime.bundle import FOR_TENSORRT, Variant
from trimexport_runtime.choice import choose, runs
from trimexport_runtime.tokenize import Encoded

from .part_by_part import Feed, cut, run_stepwise
from .report import NotRun

PYTORCH, OPTIMUM = "pytorch", "optimum"
BACKENDS = (PYTORCH, *PROVIDERS, OPTIMUM)
TRIMMED = "trimmed"  # the row of the cut head in PyTorch, which is no variant
# A variant that is larger is run a part at a time on the CPU.
WHOLE_BYTES = 2**29
_TEXTS_PER_TICK = 256
_WORKER = Path(__file__).with_name("optimum_worker.py")

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Question:
    """What every row answers: texts, and the same as the bundle tokenises them.

    `trimmed`: what the cut head says in PyTorch, float32 [texts, labels]. `optimum`: a Python that
    has optimum-onnx.
    """

    bundle: Path
    manifest: Manifest
    texts: tuple[str, ...]
    encoded: tuple[Encoded, ...]
    trimmed: Logits
    optimum: str


def rows(manifest: Manifest, backends: Sequence[str]) -> list[tuple[str, str]]:
    """The variants and the backends that should run them, in the order of `BACKENDS`; where a
    bundle has none for a backend, an empty name."""
    found = []
    for backend in (it for it in BACKENDS if it in backends):
        if backend == PYTORCH:
            names = [TRIMMED]
        elif backend == OPTIMUM:
            names = [it.name for it in manifest.variants]
        elif backend == "tensorrt":  # those without an engine are rows too
            names = [it.name for it in manifest.variants if it.name.startswith(FOR_TENSORRT)]
        else:
            names = [it.name for it in manifest.variants if runs(it, backend)]
        found += [(name, backend) for name in names or [""]]
    return found


def answer(question: Question, name: str, backend: str, progress: Progress) -> Logits | NotRun:
    """The logits of a row, float32 [texts, labels]; or why there are none.

    Raises:
        TrimexportRuntimeError: a variant cannot run on the CPU, where it must.
    """
    if backend == PYTORCH:
        return question.trimmed
    if backend == OPTIMUM:
        return _in_optimum(question, name, progress)
    try:
        variant = choose(question.manifest, name or None, backend)
        if backend == DEFAULT and variant.bytes > WHOLE_BYTES:
            return _by_parts(question, variant, progress)
        return _whole(question, variant.name, backend, progress)
    except (TrimexportRuntimeError, OSError) as error:
        if backend == DEFAULT:
            raise
        return NotRun(name, backend, str(error))


def _whole(question: Question, variant: str, backend: str, progress: Progress) -> Logits:
    """What a device would answer: the bundle through the runtime."""
    texts = question.texts
    where = "" if backend == DEFAULT else f" on {backend}"
    with progress.bar(f"variant {variant}{where}", len(texts)) as tick:
        classifier = Classifier.load(question.bundle, variant=variant, backend=backend)
        parts = []
        for start in range(0, len(texts), _TEXTS_PER_TICK):
            part = classifier.logits(texts[start : start + _TEXTS_PER_TICK])
            parts.append(part)
            tick(len(part))
        return np.concatenate(parts)


def _by_parts(question: Question, variant: Variant, progress: Progress) -> Logits:
    """The same where the weights should not all be in memory: the runtime's batches through the
    same graph a part at a time."""
    manifest, texts = question.manifest, question.encoded
    most_rows = rows_within(token_budget(variant.bytes))
    groups = batches([len(text.ids) for text in texts], most_rows)
    feeds: list[Feed] = []
    for group in groups:
        ids, mask = pad([texts[index].ids for index in group], manifest.pad_token_id)
        feeds.append({"input_ids": ids, "attention_mask": mask})
    pieces = cut(question.bundle / variant.graph, variant.precision)
    logits = np.empty((len(texts), len(manifest.labels)), dtype=np.float32)
    with progress.bar(f"variant {variant.name}, part by part", len(pieces.parts)) as tick:
        for group, found in zip(groups, run_stepwise(pieces, feeds, tick), strict=True):
            logits[group] = found
    return logits


def _in_optimum(question: Question, name: str, progress: Progress) -> Logits | NotRun:
    """What Optimum's `ORTModelForSequenceClassification` makes of the same files, tokenizer
    included, in an environment of its own."""
    variant = question.manifest.variant(name)
    request = {
        "bundle": str(question.bundle.resolve()),
        "graph": variant.graph,
        "entries": session_entries(variant.precision),
        "texts": list(question.texts),
    }
    with progress.bar(f"variant {name} in Optimum", 1) as tick:
        try:
            run = subprocess.run(
                [question.optimum, "-P", str(_WORKER)],
                input=json.dumps(request),
                capture_output=True,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            return NotRun(name, OPTIMUM, f"{question.optimum} cannot be run ({error.strerror})")
        tick(1)
    if run.returncode:
        lines = run.stderr.strip().splitlines() or ["it says no more"]
        return NotRun(name, OPTIMUM, f"{question.optimum} failed: {lines[-1]}")
    try:
        reply = json.loads(run.stdout)
    except ValueError:
        return NotRun(name, OPTIMUM, f"{question.optimum} gave no answer; name a Python")
    if "error" in reply:
        return NotRun(name, OPTIMUM, reply["error"])
    logits = np.array(reply["logits"], dtype=np.float32)
    if not np.isfinite(logits).all():
        return NotRun(name, OPTIMUM, "a logit is not a finite number")
    return logits
