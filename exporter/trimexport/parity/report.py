"""A parity report: what is measured of a bundle, and when that is good enough.

Three things are measured and never mixed. Parity compares a variant with the reference, the
untrimmed model in PyTorch, on the same token ids. The tokenisation gap says how often those ids
differ from the ids of the prompt and text joined into one string, and what that changes. The label
mass says how much of the whole vocabulary's probability the label tokens hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimexport.errors import ParityError
from trimexport.numerics import Floats
from trimexport.prompt.template import shell_prompt
from trimexport.texts import short
from trimexport_runtime.backends import DEFAULT

LISTED = 20


@dataclass(frozen=True)
class Tolerance:
    """The limits of a variant: its largest logit difference must be below `max_logit_difference`,
    if there is one, and its agreement at least `agreement`.

    A text that the reference decides by less than `tie` logits may go either way: its flip counts
    in the agreement that is reported, and not against the tolerance.
    """

    max_logit_difference: float | None
    agreement: float
    tie: float = 0.0

    def flips(self, texts: int) -> int:
        """How many of so many texts may change their answer. If `agreement` is below 1, one always
        may: among few texts, one is already more than the share that is allowed."""
        return 0 if self.agreement == 1 else max(1, int(texts * (1 - self.agreement) + 1e-9))


TOLERANCES = {
    "fp32": Tolerance(max_logit_difference=1e-3, agreement=1.0),
    # No answer of 1,821 changed where every result was rounded, the logits by 0.0034 at most; with
    # other weights and more layers they move further, so only the answers count.
    "fp16": Tolerance(max_logit_difference=None, agreement=0.998),
    "int8": Tolerance(max_logit_difference=None, agreement=0.995, tie=0.1),
    "int4": Tolerance(max_logit_difference=None, agreement=0.98, tie=0.2),
    "tensorrt-fp16": Tolerance(max_logit_difference=None, agreement=0.998),
    "tensorrt-int8": Tolerance(max_logit_difference=None, agreement=0.98, tie=0.2),
}
GAP_WARNING = 0.01
MASS_WARNING = 0.5


@dataclass(frozen=True)
class Disagreement:
    """A text on which a variant and the reference answer differently.

    `reference_margin` is by how many logits the reference's own answer is ahead of the variant's
    answer; `variant_margin` the other way round.
    """

    index: int
    text: str
    reference: str
    variant: str
    reference_margin: float
    variant_margin: float


@dataclass(frozen=True)
class VariantParity:
    """How one variant on one backend compares with the reference. Logit differences are absolute;
    `outside` are the texts whose difference is not below the tolerance, the largest first."""

    name: str
    backend: str
    max_logit_difference: float
    mean_logit_difference: float
    max_probability_difference: float
    agreement: float
    accuracy: float | None
    outside: tuple[int, ...]
    disagreements: tuple[Disagreement, ...]
    tolerance: Tolerance
    probabilities: Floats

    @property
    def title(self) -> str:
        """The row's name in tables."""
        return title(self.name, self.backend)

    @property
    def within(self) -> bool:
        """Whether the variant keeps to its tolerance."""
        limit = self.tolerance.max_logit_difference
        near = limit is None or self.max_logit_difference < limit
        flips = sum(flip.reference_margin >= self.tolerance.tie for flip in self.disagreements)
        return near and flips <= self.tolerance.flips(len(self.probabilities))


@dataclass(frozen=True)
class NotRun:
    """A row that could not run, and why. `name` is empty if the bundle has no variant for the
    backend."""

    name: str
    backend: str
    reason: str

    @property
    def title(self) -> str:
        """The row's name in tables."""
        return title(self.name, self.backend)


def title(name: str, backend: str) -> str:
    """A row's name: the variant, and the backend unless it is the default one."""
    return name if backend == DEFAULT else f"{name or 'no variant'} on {backend}"


@dataclass(frozen=True)
class TokenisationGap:
    """How many texts were compared (those that were not cut), on how many the ids differ from those
    of the joined string, and on how many of these the answer changes. `example` is the first text
    with a difference, as a message shows it.

    If the share is above GAP_WARNING, `proposal` is the source of a template without the gap, if
    one was found, and `at_prefix` says that the part before the text fuses with it. `fixed` says
    that the user cannot change the prompt: it is a chat template's or a fine-tuned classifier's.
    """

    compared: int
    different: int
    flips: int
    example: str | None
    proposal: str | None = None
    at_prefix: bool = False
    fixed: bool = False

    @property
    def share(self) -> float:
        """Share of the compared texts whose ids differ."""
        return self.different / max(self.compared, 1)


@dataclass(frozen=True)
class LabelMass:
    """The probability of all label tokens within the whole vocabulary: mean and least over the
    texts."""

    mean: float
    least: float


@dataclass(frozen=True)
class ParityReport:
    """Everything that `verify` measures. Probabilities are float64 [texts, labels];
    `logit_deviation` is the standard deviation over the texts of the reference's logits, averaged
    over the labels; `mass` is None for a fine-tuned classifier."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    gold: tuple[str, ...] | None
    reference_accuracy: float | None
    reference_probabilities: Floats
    logit_deviation: float
    variants: tuple[VariantParity, ...]
    gap: TokenisationGap
    mass: LabelMass | None
    not_run: tuple[NotRun, ...] = ()

    @property
    def within(self) -> bool:
        """Whether every variant that ran keeps to its tolerance."""
        return all(variant.within for variant in self.variants)


def require(report: ParityReport, backends: Sequence[str] = ()) -> None:
    """Raise ParityError, naming the texts, unless every variant that ran keeps to its tolerance
    and no row of these backends is missing."""
    failed = [variant for variant in report.variants if not variant.within]
    missing = [row for row in report.not_run if row.backend in backends]
    lines = [line for variant in failed for line in _verdict(report, variant)]
    lines += [f"{row.title} did not run: {row.reason}" for row in missing]
    if lines:
        raise ParityError("\n".join(lines))


def _verdict(report: ParityReport, variant: VariantParity) -> list[str]:
    """The lines that say how a variant is outside its tolerance, and on which texts."""
    flips = [
        f"  text {flip.index + 1}: {flip.reference} (by {flip.reference_margin:.4f}) became "
        f"{flip.variant} (by {flip.variant_margin:.4f}): {short(flip.text)}"
        for flip in variant.disagreements
    ]
    outside = [
        f"  text {index + 1} is outside: {short(report.texts[index])}" for index in variant.outside
    ]
    limit = variant.tolerance.max_logit_difference
    return [
        f"variant {variant.title} is outside its tolerance: largest logit difference "
        f"{variant.max_logit_difference:.3g} "
        f"(allowed: {'any' if limit is None else f'under {limit:g}'}), "
        f"label agreement {variant.agreement:.2%} "
        f"(allowed: {variant.tolerance.agreement:.2%} or more)",
        *_first(flips, "answers that changed"),
        *_first(outside, "texts outside"),
    ]


def _first(lines: list[str], what: str) -> list[str]:
    """The first `LISTED` lines, and a line that counts the others."""
    hidden = len(lines) - LISTED
    return lines if hidden <= 0 else [*lines[:LISTED], f"  and {hidden:,} more {what}"]


def warnings(report: ParityReport) -> list[str]:
    """The warnings about the prompt, a line each."""
    lines = []
    gap = report.gap
    if gap.share > GAP_WARNING:
        lines.append(
            f"warning: {gap.share:.1%} of the texts are tokenised differently when prompt and text "
            f"are one string ({gap.flips} of {gap.compared} answers change), for example "
            f"{gap.example}; {_remedy(gap)}"
        )
    if report.mass is not None and report.mass.mean < MASS_WARNING:
        lines.append(
            f"warning: the labels hold only {report.mass.mean:.1%} of the model's probability; "
            "the model would rather say something else, so try a prompt that asks more plainly, "
            "or words it prefers with --verbalize"
        )
    return lines


def _remedy(gap: TokenisationGap) -> str:
    """The part of a warning that says what to do about a gap."""
    if gap.proposal is not None:
        return f"this prompt avoids it: {shell_prompt(gap.proposal)}"
    if gap.fixed:
        return (
            "the prompt is the one that the model was trained with, so no other is proposed; where "
            "answers change, trim the texts"
        )
    if gap.at_prefix:
        return (
            "what stands before {text} fuses with the texts; end it with a line break, or with a "
            "word or sign and one space, and trim the texts"
        )
    return (
        "no other white space behind {text} avoids it; trim the texts, or begin what follows "
        "{text} with a word of its own"
    )
