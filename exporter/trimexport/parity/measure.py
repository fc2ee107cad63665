"""Measure a bundle: run the reference and every variant on the same token ids, and compare."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimexport.errors import SpecError
from trimexport.model.layerwise import LayerwiseModel
from trimexport.numerics import Floats, softmax
from trimexport.progress import Progress, Silent
from trimexport.prompt.fine_tuned import without_padding
from trimexport.prompt.template import join, parse_template
from trimexport.prompt.tokenizer import SourceTokenizer
from trimexport.texts import Texts, check_sample, short
from trimexport_runtime import Manifest, read_manifest
from trimexport_runtime.backends import DEFAULT
from trimexport_runtime.tokenize import Encoded, TextEncoder

from .backends import TRIMMED, Question, answer, rows
from .boundary import examine
from .reference import sequences_per_prompt, trie_of, tuned_reference
from .report import (
    GAP_WARNING,
    TOLERANCES,
    Disagreement,
    LabelMass,
    NotRun,
    ParityReport,
    TokenisationGap,
    Tolerance,
    VariantParity,
)


def measure(
    bundle: Path,
    model: LayerwiseModel,
    tokenizer: SourceTokenizer,
    sample: Texts,
    progress: Progress | None = None,
    backends: Sequence[str] = (DEFAULT,),
    optimum: str = sys.executable,
) -> ParityReport:
    """Compare every variant of `bundle` with the untrimmed model on `sample`.

    Args:
        bundle: a directory with a manifest.
        model: the checkpoint that the bundle was made from.
        tokenizer: that checkpoint's tokenizer.
        backends: of `parity.backends.BACKENDS`, each of which runs the variants that it can.
        optimum: the Python that runs those of backend `optimum`.

    Raises:
        SpecError: no texts, or right answers that are not labels of the bundle.
        trimexport_runtime.TrimexportRuntimeError: a variant cannot run, or a text is not one.
    """
    progress = progress or Silent()
    manifest = read_manifest(bundle)
    check_sample(sample, manifest.label_names)
    encoder = TextEncoder.load(bundle, manifest)
    encoded = [encoder.encode(text) for text in sample.texts]
    segments = [(_whole(manifest, it), it.truncated) for it in encoded]
    count = len(segments) * sequences_per_prompt(manifest)
    with progress.bar("reference (untrimmed, PyTorch fp32)", count) as tick:
        prompts = [ids for ids, _ in segments]
        reference = tuned_reference(bundle, model, manifest, prompts, tick)
    logits, mass = reference.logits, reference.mass
    question = Question(bundle, manifest, sample.texts, tuple(encoded), reference.trimmed, optimum)
    variants, absent = [], []
    for name, backend in rows(manifest, backends):
        tolerance = _tolerance(manifest, name)
        found = answer(question, name, backend, progress)
        if isinstance(found, NotRun):
            absent.append(found)
        else:
            variants.append(_compare(name, backend, tolerance, logits, found, sample, manifest))
    return ParityReport(
        labels=manifest.label_names,
        texts=sample.texts,
        gold=sample.gold,
        reference_accuracy=_accuracy(logits, sample.gold, manifest.label_names),
        reference_probabilities=softmax(logits),
        logit_deviation=float(logits.std(axis=0).mean()),
        variants=tuple(variants),
        gap=_gap(bundle, model, manifest, tokenizer, sample.texts, segments, logits, progress),
        mass=None if mass is None else LabelMass(float(mass.mean()), float(mass.min())),
        not_run=tuple(absent),
    )


def _tolerance(manifest: Manifest, name: str) -> Tolerance:
    if name in ("", TRIMMED):
        return TOLERANCES["fp32"]
    variant = manifest.variant(name)
    if variant.precision not in TOLERANCES:
        raise SpecError(
            f'variant "{variant.name}" has precision "{variant.precision}", for which this release '
            f"has no tolerance; it knows {', '.join(TOLERANCES)}: upgrade trimexport"
        )
    return TOLERANCES[variant.precision]


def _whole(manifest: Manifest, text: Encoded) -> tuple[int, ...]:
    """The ids of the whole prompt around a text, tokenised as the bundle does."""
    return (*manifest.prompt.prefix_ids, *text.ids.tolist(), *manifest.prompt.suffix_ids)


def _compare(
    name: str,
    backend: str,
    tolerance: Tolerance,
    reference: Floats,
    found: npt.NDArray[np.float32],
    sample: Texts,
    manifest: Manifest,
) -> VariantParity:
    logits = found.astype(np.float64)
    difference = np.abs(logits - reference)
    probabilities = softmax(logits)
    labels = manifest.label_names
    ours, theirs = logits.argmax(1), reference.argmax(1)
    flips = tuple(
        Disagreement(
            index=int(i),
            text=sample.texts[i],
            reference=labels[theirs[i]],
            variant=labels[ours[i]],
            reference_margin=float(reference[i, theirs[i]] - reference[i, ours[i]]),
            variant_margin=float(logits[i, ours[i]] - logits[i, theirs[i]]),
        )
        for i in np.flatnonzero(ours != theirs)
    )
    return VariantParity(
        name=name,
        backend=backend,
        max_logit_difference=float(difference.max()),
        mean_logit_difference=float(difference.mean()),
        max_probability_difference=float(np.abs(probabilities - softmax(reference)).max()),
        agreement=float((ours == theirs).mean()),
        accuracy=_accuracy(logits, sample.gold, labels),
        outside=_outside(difference.max(axis=1), tolerance),
        disagreements=flips,
        tolerance=tolerance,
        probabilities=probabilities,
    )


def _outside(differences: Floats, tolerance: Tolerance) -> tuple[int, ...]:
    """The texts beyond the tolerance, the largest difference first."""
    if tolerance.max_logit_difference is None:
        return ()
    beyond = np.flatnonzero(differences >= tolerance.max_logit_difference)
    return tuple(int(i) for i in beyond[np.argsort(-differences[beyond], kind="stable")])


def _gap(
    bundle: Path,
    model: LayerwiseModel,
    manifest: Manifest,
    tokenizer: SourceTokenizer,
    texts: Sequence[str],
    segments: Sequence[tuple[tuple[int, ...], bool]],
    logits: Floats,
    progress: Progress,
) -> TokenisationGap:
    """Compare with the joined string; texts that were cut, or whose joined string is longer than
    the model's context, are left out."""
    template = parse_template(manifest.prompt.template)
    rendered = manifest.prompt.rendered
    fixed = rendered or model.checkpoint.is_classifier
    ending = _ending(model, tokenizer)
    trie = trie_of(manifest)
    room = model.checkpoint.context - (max(trie.depths) if trie else 0)
    joined = {}
    for index, (text, (_, truncated)) in enumerate(zip(texts, segments, strict=True)):
        if truncated:
            continue
        ids = (*tokenizer.encode_start(join(template, text), rendered=rendered), *ending)
        if len(ids) <= room:
            joined[index] = ids
    different = [index for index, ids in joined.items() if ids != segments[index][0]]
    if not different:
        return TokenisationGap(len(joined), different=0, flips=0, example=None)
    count = len(different) * sequences_per_prompt(manifest)
    with progress.bar("texts with a tokenisation gap", count) as tick:
        prompts = [joined[i] for i in different]
        other = tuned_reference(bundle, model, manifest, prompts, tick).logits
    flips = int((other.argmax(1) != logits[different].argmax(1)).sum())
    gap = TokenisationGap(
        len(joined), len(different), flips, short(texts[different[0]]), fixed=fixed
    )
    if fixed or gap.share <= GAP_WARNING:
        return gap
    found = examine(template, tokenizer, [texts[index] for index in joined])
    proposal = None if found.proposal is None else found.proposal.source
    return replace(gap, proposal=proposal, at_prefix=found.at_prefix)


def _ending(model: LayerwiseModel, tokenizer: SourceTokenizer) -> tuple[int, ...]:
    """What follows a joined string: a fine-tuned classifier reads its end tokens too."""
    if not model.checkpoint.is_classifier:
        return ()
    return without_padding(tokenizer.end_ids, model.checkpoint.config.pad_token_id)


def _accuracy(logits: Floats, gold: Sequence[str] | None, labels: Sequence[str]) -> float | None:
    if gold is None:
        return None
    right = np.array([labels.index(name) for name in gold])
    return float((logits.argmax(1) == right).mean())
