"""Measure a bundle: run the reference and every variant on the same token ids, and compare."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimexport.errors import ParityError, SpecError
from trimexport.model.layerwise import LayerwiseModel
from trimexport.numerics import Floats, deviation, margin_error, margins, softmax
from trimexport.progress import Progress, Silent
from trimexport.prompt.tokenizer import SourceTokenizer
from trimexport.records import one_line, short
from trimexport.texts import Texts, check_sample, inputs_for, judged
from trimexport_runtime import Manifest, read_manifest
from trimexport_runtime.backends import DEFAULT
from trimexport_runtime.inputs import Input
from trimexport_runtime.pack import read_pack
from trimexport_runtime.questions import views
from trimexport_runtime.tokenize import Encoded, TextEncoder

from .backends import TRIMMED, RowInputs, rows, run_row
from .decisions import Decisions, decisions_of
from .gap import measure_gaps
from .reference import all_references, all_sequences
from .report import Disagreement, LabelMass, NotRun, ParityReport, VariantParity
from .tolerance import TOLERANCES, Tolerance


def measure(
    bundle: Path,
    model: LayerwiseModel,
    tokenizer: SourceTokenizer,
    sample: Texts,
    progress: Progress | None = None,
    backends: Sequence[str] = (DEFAULT,),
    optimum: str = sys.executable,
    pack: Path | None = None,
) -> ParityReport:
    """Compare every variant of `bundle` with the untrimmed model on `sample`.

    Args:
        bundle: a directory with a manifest, or where there is a pack its backbone.
        model: the checkpoint that the bundle was made from.
        tokenizer: that checkpoint's tokenizer.
        backends: some of `parity.backends.BACKENDS`; each runs the variants that it can.
        optimum: the Python that runs the variants of backend `optimum`.
        pack: the task that is measured.

    Raises:
        SpecError: no texts, or right answers that are not labels of the bundle.
        trimexport_runtime.TrimexportRuntimeError: a variant cannot run, or a text is not one.
    """
    progress = progress or Silent()
    manifest = read_manifest(bundle) if pack is None else read_pack(pack).manifest
    sample = _judged(sample, manifest, progress)
    check_sample(sample, manifest.label_names)
    sample = inputs_for(sample, manifest.prompt.places)
    encoder = TextEncoder.load(bundle, manifest)
    encoded = tuple(encoder.encode(text) for text in sample.texts)
    prompts = [[_prompt_ids(view, text) for text in encoded] for view in views(manifest)]
    sequences = len(encoded) * all_sequences(manifest)
    with progress.bar("reference (untrimmed, PyTorch fp32)", sequences) as tick:
        reference = all_references(bundle, model, manifest, prompts, tick)
    logits, mass, each = reference.logits, reference.mass, decisions_of(manifest)
    require_finite(logits, sample.texts)
    decided = each.of(logits)
    inputs = RowInputs(bundle, manifest, sample.texts, encoded, reference.trimmed, optimum, pack)
    variants, not_run = _run_rows(inputs, backends, logits, sample, progress)
    uncut = [place for place, text in enumerate(encoded) if not text.truncated]
    texts = sample.texts
    ids = [{place: own[place] for place in uncut} for own in prompts]
    return ParityReport(
        labels=manifest.label_names,
        texts=texts,
        gold=sample.gold,
        reference_accuracy=_accuracy(decided, sample.gold, manifest.label_names),
        reference_probabilities=softmax(decided),
        logit_deviation=float(logits.std(axis=0).mean()),
        margin_deviation=deviation(margins(decided, decided)[0], each.kinds),
        variants=variants,
        gap=measure_gaps(bundle, model, manifest, tokenizer, texts, ids, logits, progress),
        mass=None if mass is None else LabelMass(float(mass.mean()), float(mass.min())),
        not_run=not_run,
        score=manifest.score,
        questions=tuple(question.name for question in manifest.questions),
    )


def _judged(sample: Texts, manifest: Manifest, progress: Progress) -> Texts:
    """The texts, without right answers where they cannot be those of all that the bundle says."""
    if sample.gold is not None and manifest.questions:
        progress.say(
            "the texts have one label each and the bundle several questions, so no accuracy is "
            "measured here; `trimexport eval` measures each question's"
        )
    return judged(sample, manifest.score, several=bool(manifest.questions))


def require_finite(reference: Floats, texts: Sequence[Input]) -> None:
    """Raise ParityError if the reference, [texts, outputs], is no finite number somewhere. What the
    untrimmed model computes is finite, but the bundle's own bias or head was added to it."""
    wrong = np.flatnonzero(~np.isfinite(reference).all(axis=1))
    if len(wrong):
        raise ParityError(
            f"with the bundle's own head and bias a logit of text {wrong[0] + 1} "
            f"({short(texts[wrong[0]])}) is no finite number, so nothing can be compared with it; "
            "fit or calibrate the bundle again"
        )


def _run_rows(
    inputs: RowInputs,
    backends: Sequence[str],
    reference: Floats,
    sample: Texts,
    progress: Progress,
) -> tuple[tuple[VariantParity, ...], tuple[NotRun, ...]]:
    """Run every row of the table: those that ran, compared with the reference, and those that
    could not."""
    compared, not_run = [], []
    for name, backend in rows(inputs.manifest, backends):
        tolerance = _tolerance(inputs.manifest, name)
        logits = run_row(inputs, name, backend, progress)
        if isinstance(logits, NotRun):
            not_run.append(logits)
        else:
            compared.append(
                _compare(name, backend, tolerance, reference, logits, sample, inputs.manifest)
            )
    return tuple(compared), tuple(not_run)


def _tolerance(manifest: Manifest, name: str) -> Tolerance:
    """The tolerance of a row: the one of its variant's precision; fp32's for the cut head.

    Raises:
        SpecError: there is none for that precision.
    """
    if name in ("", TRIMMED):
        return TOLERANCES["fp32"]
    variant = manifest.variant(name)
    if variant.precision not in TOLERANCES:
        raise SpecError(
            f'variant "{variant.name}" has precision "{variant.precision}", for which this release '
            f"has no tolerance; it knows {', '.join(TOLERANCES)}: upgrade trimexport"
        )
    return TOLERANCES[variant.precision]


def _prompt_ids(manifest: Manifest, text: Encoded) -> tuple[int, ...]:
    """The ids of the whole prompt around a text, tokenised as the bundle does."""
    return (*manifest.prompt.prefix_ids, *text.ids.tolist(), *manifest.prompt.suffix_ids)


def _compare(
    name: str,
    backend: str,
    tolerance: Tolerance,
    reference: Floats,
    row_logits: npt.NDArray[np.float32],
    sample: Texts,
    manifest: Manifest,
) -> VariantParity:
    """Compare a row's logits with the reference's, both [texts, outputs]."""
    difference = np.abs(row_logits.astype(np.float64) - reference)
    each = decisions_of(manifest)
    logits, expected = each.of(row_logits.astype(np.float64)), each.of(reference)
    probabilities = softmax(logits)
    variant = next((it for it in manifest.variants if it.name == name), None)
    return VariantParity(
        name=name,
        backend=backend,
        max_logit_difference=float(difference.max()),
        mean_logit_difference=float(difference.mean()),
        max_probability_difference=float(np.abs(probabilities - softmax(expected)).max()),
        agreement=float((logits.argmax(1) == expected.argmax(1)).mean()),
        margin_error=margin_error(expected, logits, each.kinds),
        accuracy=_accuracy(logits, sample.gold, manifest.label_names),
        outside=_outside(difference.max(axis=1), tolerance),
        disagreements=_disagreements(logits, expected, sample.texts, each),
        tolerance=tolerance,
        probabilities=probabilities,
        kept=variant is not None and variant.outside_tolerance,
        taken_over=None if variant is None else variant.taken_over,
    )


def _disagreements(
    logits: Floats, reference: Floats, texts: Sequence[Input], each: Decisions
) -> tuple[Disagreement, ...]:
    """The decisions that logits and reference, both [decisions, options], make differently."""
    ours, theirs = logits.argmax(1), reference.argmax(1)
    found = []
    for row in np.flatnonzero(ours != theirs).tolist():
        index, names = each.place(row)
        found.append(
            Disagreement(
                index=index,
                text=one_line(texts[index]),
                reference=names[theirs[row]],
                variant=names[ours[row]],
                reference_margin=float(reference[row, theirs[row]] - reference[row, ours[row]]),
                variant_margin=float(logits[row, ours[row]] - logits[row, theirs[row]]),
            )
        )
    return tuple(found)


def _outside(differences: Floats, tolerance: Tolerance) -> tuple[int, ...]:
    """The places of the texts whose largest logit difference, float64 [texts], is not below the
    tolerance, the largest first."""
    if tolerance.max_logit_difference is None:
        return ()
    beyond = np.flatnonzero(differences >= tolerance.max_logit_difference)
    return tuple(int(i) for i in beyond[np.argsort(-differences[beyond], kind="stable")])


def _accuracy(logits: Floats, gold: Sequence[str] | None, labels: Sequence[str]) -> float | None:
    """The share of right answers, or None where these are not known."""
    if gold is None:
        return None
    right = np.array([labels.index(name) for name in gold])
    return float((logits.argmax(1) == right).mean())
