"""Prove it: how the bundle's variants answer, compared with the untrimmed model in PyTorch.

Three things are measured and never mixed. Parity compares a variant with the reference on the
same token ids. The tokenisation gap says how often those ids differ from the ids of the prompt
and text joined into one string, and what that changes. The label mass says how much of the whole
vocabulary's probability the label tokens hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from trimexport_runtime import Classifier, Manifest, read_manifest
from trimexport_runtime.bundle import Variant
from trimexport_runtime.tokenize import TextEncoder

from .errors import ParityError, SpecError
from .graph import combine_words
from .layerwise import LayerwiseModel
from .progress import Progress, Silent
from .prompt import join, parse_template
from .tokenizer import SourceTokenizer

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tolerance:
    """What a variant must keep to: a logit difference below, and an agreement of at least."""

    max_logit_difference: float
    agreement: float


TOLERANCES = {"fp32": Tolerance(max_logit_difference=1e-3, agreement=1.0)}
GAP_WARNING = 0.01
MASS_WARNING = 0.5


@dataclass(frozen=True)
class Disagreement:
    """A text on which a variant and the reference answer differently.

    Margins are how far each one's own answer is ahead of the other's, in logits.
    """

    index: int
    text: str
    reference: str
    variant: str
    reference_margin: float
    variant_margin: float


@dataclass(frozen=True)
class VariantParity:
    """How one variant compares with the reference. Logit differences are absolute."""

    name: str
    max_logit_difference: float
    mean_logit_difference: float
    max_probability_difference: float
    agreement: float
    accuracy: float | None
    worst_text: int
    disagreements: tuple[Disagreement, ...]
    tolerance: Tolerance
    probabilities: Floats

    @property
    def within(self) -> bool:
        """Whether the variant keeps to its tolerance."""
        return (
            self.max_logit_difference < self.tolerance.max_logit_difference
            and self.agreement >= self.tolerance.agreement
        )


@dataclass(frozen=True)
class TokenisationGap:
    """Texts whose ids differ from those of the joined string, and labels that this changes."""

    different: int
    flips: int
    example: str | None


@dataclass(frozen=True)
class LabelMass:
    """Probability of the label tokens within the whole vocabulary: mean and least over texts."""

    mean: float
    least: float


@dataclass(frozen=True)
class ParityReport:
    """Everything that `verify` measures. Probabilities are float64 [texts, labels]."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    gold: tuple[str, ...] | None
    reference_accuracy: float | None
    reference_probabilities: Floats
    logit_deviation: float
    variants: tuple[VariantParity, ...]
    gap: TokenisationGap
    mass: LabelMass

    @property
    def within(self) -> bool:
        """Whether every variant keeps to its tolerance."""
        return all(variant.within for variant in self.variants)


@dataclass(frozen=True)
class Texts:
    """Texts to compare on, and the right answers where they are known."""

    texts: tuple[str, ...]
    gold: tuple[str, ...] | None = None


def measure(
    bundle: Path,
    model: LayerwiseModel,
    tokenizer: SourceTokenizer,
    sample: Texts,
    progress: Progress | None = None,
) -> ParityReport:
    """Compare every variant of `bundle` with the untrimmed model on `sample`.

    Args:
        bundle: a directory with a manifest.
        model: the checkpoint that the bundle was made from.
        tokenizer: that checkpoint's tokenizer.

    Raises:
        SpecError: no texts, or right answers that are not labels of the bundle.
        trimexport_runtime.TrimexportRuntimeError: a variant cannot run, or a text is not one.
    """
    progress = progress or Silent()
    manifest = read_manifest(bundle)
    check_sample(sample, manifest.label_names)
    segments = _segment_ids(bundle, manifest, sample.texts)
    with progress.bar("reference (untrimmed, PyTorch fp32)", len(segments)) as tick:
        logits, mass = _reference(model, manifest, segments, tick)
    variants = []
    for variant in manifest.variants:
        with progress.bar(f"variant {variant.name}", len(segments)) as tick:
            found = Classifier.load(bundle, variant=variant.name).logits(sample.texts)
            tick(len(segments))
        tolerance = _tolerance(variant)
        variants.append(_compare(variant.name, tolerance, logits, found, sample, manifest))
    return ParityReport(
        labels=manifest.label_names,
        texts=sample.texts,
        gold=sample.gold,
        reference_accuracy=_accuracy(logits, sample.gold, manifest.label_names),
        reference_probabilities=_softmax(logits),
        logit_deviation=float(logits.std(axis=0).mean()),
        variants=tuple(variants),
        gap=_gap(model, manifest, tokenizer, sample.texts, segments, logits),
        mass=LabelMass(mean=float(mass.mean()), least=float(mass.min())),
    )


def require(report: ParityReport) -> None:
    """Raise ParityError, naming the texts, unless every variant keeps to its tolerance."""
    for variant in report.variants:
        if variant.within:
            continue
        worst = report.texts[variant.worst_text]
        lines = [
            f"variant {variant.name} is outside its tolerance: largest logit difference "
            f"{variant.max_logit_difference:.3g} (allowed: under "
            f"{variant.tolerance.max_logit_difference:g}), label agreement "
            f"{variant.agreement:.2%} (allowed: {variant.tolerance.agreement:.2%} or more); the "
            f"largest is on text {variant.worst_text + 1}: {_short(worst)}"
        ]
        lines += [
            f"  text {item.index + 1}: {item.reference} (by {item.reference_margin:.4f}) became "
            f"{item.variant} (by {item.variant_margin:.4f}): {_short(item.text)}"
            for item in variant.disagreements
        ]
        raise ParityError("\n".join(lines))


def warnings(report: ParityReport) -> list[str]:
    """A line for each thing about the prompt that a user should change."""
    lines = []
    share = report.gap.different / len(report.texts)
    if share > GAP_WARNING:
        lines.append(
            f"warning: {share:.1%} of the texts are tokenised differently when prompt and text are "
            f"one string ({report.gap.flips} of {len(report.texts)} answers change), for example "
            f"{report.gap.example}; begin what follows {{text}} with a line break or a space"
        )
    if report.mass.mean < MASS_WARNING:
        lines.append(
            f"warning: the labels hold only {report.mass.mean:.1%} of the model's probability; "
            "the model would rather say something else, so try a prompt that asks more plainly, "
            "or words it prefers with --verbalize"
        )
    return lines


def check_sample(sample: Texts, labels: Sequence[str]) -> None:
    """Raise SpecError unless there are texts and their right answers are among the labels."""
    if not sample.texts:
        raise SpecError("there is no text to compare on; give a file with one text a line")
    strange = sorted(set(sample.gold or ()) - set(labels))
    if strange:
        raise SpecError(
            f"the texts are labelled {', '.join(strange[:5])}, the bundle's labels are "
            f"{', '.join(labels)}; the file's label column must use those"
        )


def _tolerance(variant: Variant) -> Tolerance:
    if variant.precision not in TOLERANCES:
        raise SpecError(
            f'variant "{variant.name}" has precision "{variant.precision}", for which this release '
            f"has no tolerance; it knows {', '.join(TOLERANCES)}: upgrade trimexport"
        )
    return TOLERANCES[variant.precision]


def _segment_ids(
    bundle: Path, manifest: Manifest, texts: Sequence[str]
) -> list[tuple[tuple[int, ...], bool]]:
    """Each text's whole prompt as ids, tokenised as the bundle does, and whether it was cut."""
    encoder = TextEncoder.load(bundle, manifest)
    prompt = manifest.prompt
    found = []
    for text in texts:
        encoded = encoder.encode(text)
        ids = (*prompt.prefix_ids, *encoded.ids.tolist(), *prompt.suffix_ids)
        found.append((ids, encoded.truncated))
    return found


def _reference(
    model: LayerwiseModel,
    manifest: Manifest,
    segments: Sequence[tuple[tuple[int, ...], bool]],
    tick: object,
) -> tuple[Floats, Floats]:
    """Label logits of the untrimmed model [n, labels], and its label mass [n]."""
    token_ids = [token for label in manifest.labels for token in label.token_ids]
    sizes = [len(label.token_ids) for label in manifest.labels]
    result = model.reference([ids for ids, _ in segments], token_ids, tick)  # type: ignore[arg-type]
    logits = combine_words(result.token_logits, sizes)
    mass = torch.exp(result.token_logits.logsumexp(1) - result.log_normaliser)
    return logits.double().numpy(), mass.double().numpy()


def _compare(
    name: str,
    tolerance: Tolerance,
    reference: Floats,
    found: npt.NDArray[np.float32],
    sample: Texts,
    manifest: Manifest,
) -> VariantParity:
    logits = found.astype(np.float64)
    difference = np.abs(logits - reference)
    probabilities = _softmax(logits)
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
        max_logit_difference=float(difference.max()),
        mean_logit_difference=float(difference.mean()),
        max_probability_difference=float(np.abs(probabilities - _softmax(reference)).max()),
        agreement=float((ours == theirs).mean()),
        accuracy=_accuracy(logits, sample.gold, labels),
        worst_text=int(difference.max(axis=1).argmax()),
        disagreements=flips,
        tolerance=tolerance,
        probabilities=probabilities,
    )


def _gap(
    model: LayerwiseModel,
    manifest: Manifest,
    tokenizer: SourceTokenizer,
    texts: Sequence[str],
    segments: Sequence[tuple[tuple[int, ...], bool]],
    logits: Floats,
) -> TokenisationGap:
    """Compare with the joined string; texts that were cut are left out, for nothing joins them."""
    template = parse_template(manifest.prompt.template)
    joined = {
        index: tokenizer.encode_start(join(template, text))
        for index, (text, (_, cut)) in enumerate(zip(texts, segments, strict=True))
        if not cut
    }
    room = model.checkpoint.context
    different = [i for i, ids in joined.items() if ids != segments[i][0] and len(ids) <= room]
    if not different:
        return TokenisationGap(different=0, flips=0, example=None)
    other, _ = _reference(model, manifest, [(joined[i], False) for i in different], lambda n: None)
    flips = int((other.argmax(1) != logits[different].argmax(1)).sum())
    return TokenisationGap(len(different), flips, example=_short(texts[different[0]]))


def _accuracy(logits: Floats, gold: Sequence[str] | None, labels: Sequence[str]) -> float | None:
    if gold is None:
        return None
    right = np.array([labels.index(name) for name in gold])
    return float((logits.argmax(1) == right).mean())


def _softmax(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
