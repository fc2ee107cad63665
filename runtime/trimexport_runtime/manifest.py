"""The fields of a bundle's manifest, `trimexport.json`, which is read and written by `bundle`.

A field's type hint is the rule by which it is read (`_manifest_json.read`); a field with a default
may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .errors import BundleError
from .labels import Calibration, Fit, Label, Question
from .score import Score

INPUTS, OUTPUT = ("input_ids", "attention_mask"), "logits"
"""The names of every graph's inputs and its output."""

LAST, MEAN = "last", "mean"
"""What a head reads, as the manifest says it."""

FOR_TENSORRT = "tensorrt-"
"""How the names of variants for TensorRT begin."""


@dataclass(frozen=True)
class Field:
    """A place in the prompt for a text.

    `before` are the token ids between the field before and this one; the first field has none, for
    what stands before it is the prefix. `lead` is the white space that is written before a text
    that is not empty, besides what the bundle's tokenizer writes. `default` is the text that stands
    here where none is given; None says that one has to be given.
    """

    name: str
    before: tuple[int, ...] = ()
    lead: str = ""
    default: str | None = None


@dataclass(frozen=True)
class Prompt:
    """The compiled prompt: what the graph adds around each text.

    `text_lead` is the white space that the bundle's tokenizer writes before each text, because
    the prefix ended in it. `rendered` says that a chat template wrote the prompt, bos included.
    `examples` are the SHA-256 of texts that stand in it as examples. `fields` are the prompt's
    fields in their order; a prompt whose only field is `text` may leave them out. Before
    `prefix_ids` stand so many `virtual_tokens`, which training made and no vocabulary has. `pool`
    is what the head reads: the `last` token's hidden state, or the `mean` of those of the text's
    own tokens.
    """

    template: str
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    text_lead: str
    rendered: bool = False
    examples: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    virtual_tokens: int = 0
    pool: str = LAST

    @property
    def mean_behind(self) -> int | None:
        """Behind how many ids of a whole prompt the text's own begin, of whose hidden states the
        head reads the mean; None where it reads the last one."""
        return len(self.prefix_ids) if self.pool == MEAN else None

    @property
    def places(self) -> tuple[Field, ...]:
        """The prompt's fields, the only one included where it has no others."""
        return self.fields or (Field("text"),)


@dataclass(frozen=True)
class TextLimit:
    """The most tokens a text may have, and which end is cut off a longer one (`end`, `start`).

    Where the prompt has several fields, the limit is for all of them and the ids between them
    together, and `field` is the one that is cut; the others never are. None is the last field.
    """

    tokens: int
    truncate: str
    field: str | None = None


@dataclass(frozen=True)
class Source:
    """Where the weights come from. `directory` is None for a hub id; of a GGUF it is the file, by
    whose name `model` goes.

    `adapter` is the LoRA adapter that was merged into them, a directory or a hub id, and
    `adapter_sha256` the hash of its configuration and weights; both None where there was none.
    `tokenizer` is the directory or file of one that was named instead of the model's own, and
    `tokenizer_sha256` its file's hash. `layers` is how many of the model's first layers the bundle
    has, None where it has all.
    """

    model: str
    revision: str | None
    directory: str | None
    architecture: str
    config_sha256: str
    notice: str | None
    adapter: str | None = None
    adapter_sha256: str | None = None
    tokenizer: str | None = None
    tokenizer_sha256: str | None = None
    layers: int | None = None


@dataclass(frozen=True)
class BundleFile:
    """A file of the bundle, by its path relative to the bundle, with `/` between folders."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Parity:
    """How a variant agreed with the reference on `texts` texts, as the build measured it.

    Logit differences are absolute, in the logits' own unit; `agreement` is a share in [0, 1].
    `margin_error` is the standard deviation over the texts of the error of the margin between the
    reference's two best labels, by that of the margin itself; None where the margin hardly varied.
    `tolerance` is what the largest logit difference had to stay under, None where it does not
    count. An agreement of `agreement_tolerance` at least was asked, and a margin error under
    `margin_error_tolerance`, if that is not None, as far as so many texts could tell.
    """

    texts: int
    max_logit_difference: float
    mean_logit_difference: float
    max_probability_difference: float
    agreement: float
    tolerance: float | None
    agreement_tolerance: float = 1.0
    margin_error: float | None = None
    margin_error_tolerance: float | None = None


@dataclass(frozen=True)
class Profile:
    """Batches [rows, tokens] that an engine takes: from [1, 1] to `max`, tuned for `opt`."""

    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclass(frozen=True)
class Engine:
    """A TensorRT engine, which runs with one version of TensorRT on one kind of GPU.

    `file` is its path in the bundle, which is not among the manifest's files: a bundle is whole
    without it. `tensorrt` is that version, `compute_capability` the kind, such as 8.9, and `gpu`
    the name of the one it was built on. `built_from` gives the SHA-256 of each file that it was
    built from.
    """

    file: str
    bytes: int
    sha256: str
    tensorrt: str
    compute_capability: str
    gpu: str
    profiles: tuple[Profile, ...]
    built_from: Mapping[str, str]


@dataclass(frozen=True)
class TakenOver:
    """What a variant has of a GGUF file with the file's own codes, scales and minima, so that
    nothing was rounded again: so many `matrices` out of all `of`, and perhaps the embedding."""

    matrices: int
    of: int
    embedding: bool

    @property
    def phrase(self) -> str:
        """What that is, for people: `126 of 126 matrices and the embedding`."""
        return f"{self.matrices} of {self.of} matrices{' and the embedding' * self.embedding}"


@dataclass(frozen=True)
class Variant:
    """One numeric form of the model. `files` are paths of the bundle's files that it needs.

    `operators` are the operator sets that its graph uses: `ai.onnx` alone is portable.
    `weight_error` is the largest relative error of a weight matrix, the norm of the difference by
    the norm of the matrix; None where weights were not quantised. `parity` is None while the build
    is measuring it, and where `trimexport fit` put another head since. `engine` is what was built
    of the graph for TensorRT, if anything was. `outside_tolerance` says that the build measured it
    outside its tolerance and kept it all the same, because that was asked for. `taken_over` is None
    where nothing is as a GGUF file has it.
    """

    name: str
    graph: str
    files: tuple[str, ...]
    precision: str
    opset: int
    providers: tuple[str, ...]
    bytes: int
    operators: tuple[str, ...] = ("ai.onnx",)
    weight_error: float | None = None
    parity: Parity | None = None
    engine: Engine | None = None
    outside_tolerance: bool = False
    taken_over: TakenOver | None = None


def variant_of(variants: Sequence[Variant], name: str, whose: str = "bundle") -> Variant:
    """The variant called `name` of a bundle, or of what else messages are to call it.

    Raises:
        BundleError: there is no such variant.
    """
    for variant in variants:
        if variant.name == name:
            return variant
    names = ", ".join(variant.name for variant in variants)
    raise BundleError(f'the {whose} has no variant "{name}"; it has: {names}')


@dataclass(frozen=True)
class Manifest:
    """`trimexport.json` as a value.

    Where there are `questions`, `labels` are those of all of them, one question after the other, by
    names that say whose they are (`questions.flat_name`); `calibration` and `fit` are then None,
    for each question has its own, and `prompt.suffix_ids` are none.
    """

    format_version: int
    labels: tuple[Label, ...]
    prompt: Prompt
    text_limit: TextLimit
    pad_token_id: int
    source: Source
    variants: tuple[Variant, ...]
    files: tuple[BundleFile, ...]
    label_mass: float | None = None
    tokenisation_gap: float | None = None
    tool_versions: Mapping[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None
    fit: Fit | None = None
    score: Score = field(default_factory=Score)
    questions: tuple[Question, ...] = ()

    @property
    def depth_phrase(self) -> str:
        """What of the model the head reads, for people: `the model's first 13 layers, mean of the
        text's hidden states`; empty where it is all layers and the last hidden state."""
        layers = self.source.layers
        first = [] if layers is None else [f"the model's first {layers} layers"]
        mean = ["mean of the text's hidden states"] * (self.prompt.pool == MEAN)
        return ", ".join((*first, *mean))

    @property
    def outputs(self) -> int:
        """How many logits the graph returns for each text."""
        return 1 if self.score.is_single else len(self.labels)

    @property
    def cut_field(self) -> str:
        """The name of the field of which a part is left out where a row is over the limit."""
        return self.text_limit.field or self.prompt.places[-1].name

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels in the order of the logits."""
        return tuple(label.name for label in self.labels)

    def variant(self, name: str | None = None) -> Variant:
        """The variant called `name`, or the first.

        Raises:
            BundleError: the bundle holds no such variant.
        """
        return self.variants[0] if name is None else variant_of(self.variants, name)
