"""A parity report: what is measured of a bundle, and when that is good enough.

Three things are measured and never mixed. Parity compares a variant with the reference, the
untrimmed model in PyTorch, on the same token ids. The tokenisation gap says how often those ids
differ from the ids of the prompt and text joined into one string, and what that changes. The label
mass says how much of the whole vocabulary's probability the label tokens hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trimexport.evaluation.intervals import exact, of_ratio
from trimexport.numerics import Floats
from trimexport_runtime.backends import DEFAULT
from trimexport_runtime.bundle import Score, TakenOver
from trimexport_runtime.inputs import Input

from .tolerance import Tolerance

LISTED = 20


@dataclass(frozen=True)
class Disagreement:
    """A text on which a variant and the reference answer differently, on one of its labels where
    these are independent.

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
    `margin_error` is None where the texts' margins hardly vary (see `numerics.margin_error`);
    `outside` are the texts whose difference is not below the tolerance, the largest first. `kept`
    says that the bundle has the variant even if it is outside its tolerance; `taken_over`, what the
    variant has of a GGUF file as it is there."""

    name: str
    backend: str
    max_logit_difference: float
    mean_logit_difference: float
    max_probability_difference: float
    agreement: float
    margin_error: float | None
    accuracy: float | None
    outside: tuple[int, ...]
    disagreements: tuple[Disagreement, ...]
    tolerance: Tolerance
    probabilities: Floats
    kept: bool = False
    taken_over: TakenOver | None = None

    @property
    def title(self) -> str:
        """The row's name in tables."""
        return title(self.name, self.backend)

    @property
    def agreement_interval(self) -> tuple[float, float]:
        """The 95 % interval of the agreement on texts like these."""
        count = len(self.probabilities)
        return exact(count - len(self.disagreements), count)

    @property
    def margin_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the margin error, if there is one."""
        if self.margin_error is None:
            return None
        return of_ratio(self.margin_error, len(self.probabilities))

    @property
    def within(self) -> bool:
        """Whether the variant keeps to its tolerance, as far as the texts can tell."""
        limits, margins = self.tolerance, self.margin_interval
        largest = limits.max_logit_difference
        near = largest is None or self.max_logit_difference < largest
        agrees = self.agreement_interval[1] >= limits.agreement
        if limits.margin_error is None or margins is None:
            return near and agrees
        return near and agrees and margins[0] < limits.margin_error


@dataclass(frozen=True)
class NotRun:
    """A row without logits, and why. `name` is empty if the bundle has no variant for the backend.
    `failed` says that it ran, and gave what is no finite number; else it could not run."""

    name: str
    backend: str
    reason: str
    failed: bool = False

    @property
    def title(self) -> str:
        """The row's name in tables."""
        return title(self.name, self.backend)

    @property
    def sentence(self) -> str:
        """What is to be said of the row."""
        return f"{self.title} {'fails' if self.failed else 'did not run'}: {self.reason}"


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
    Of several questions, each text is compared once with each; `by_question` has their shares.
    """

    compared: int
    different: int
    flips: int
    example: str | None
    proposal: str | None = None
    at_prefix: bool = False
    fixed: bool = False
    by_question: Mapping[str, float] = field(default_factory=dict)

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
    """Everything that `verify` measures. Probabilities are float64 [decisions, options], which are
    [texts, labels] unless labels are independent or a logit stands for one (see `decisions`);
    `logit_deviation` is the standard deviation over the texts of the reference's logits, averaged
    over the labels, `margin_deviation` that of the margin between its two best labels; `mass` is
    None for a fine-tuned classifier. Several `questions` are as many decisions on each text."""

    labels: tuple[str, ...]
    texts: tuple[Input, ...]
    gold: tuple[str, ...] | None
    reference_accuracy: float | None
    reference_probabilities: Floats
    logit_deviation: float
    margin_deviation: float
    variants: tuple[VariantParity, ...]
    gap: TokenisationGap
    mass: LabelMass | None
    not_run: tuple[NotRun, ...] = ()
    score: Score = field(default_factory=Score)
    questions: tuple[str, ...] = ()

    @property
    def within(self) -> bool:
        """Whether every variant that ran keeps to its tolerance."""
        failed = any(row.failed for row in self.not_run)
        return not failed and all(variant.within for variant in self.variants)
