"""The bundle's manifest, `trimexport.json`: its fields, and reading it.

The exporter writes it and the runtime reads it, both through the classes here. Unknown keys are
ignored, so that an older runtime reads what a newer exporter adds; a newer `format_version` is
refused, because it means that the old fields no longer suffice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ._manifest_json import inside, is_int, known
from .errors import BundleError, VersionError

FORMAT_VERSION = 1
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "logits"
"""The names of every graph's inputs and its output."""

FOR_TENSORRT = "tensorrt-"
"""How the names of variants for TensorRT begin."""

MANIFEST = "trimexport.json"


@dataclass(frozen=True)
class Label:
    """One answer and the vocabulary tokens that stand for it after the prompt.

    `token_ids` and `tokens` are each word's first. `sequences` are the token ids of whole words,
    where those are read, because some labels begin alike; elsewhere there are none.
    """

    name: str
    words: tuple[str, ...]
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    sequences: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Prompt:
    """The compiled prompt: what the graph adds around each text.

    `text_lead` is the white space that the bundle's tokenizer writes before each text, because
    the prefix ended in it. `rendered` says that a chat template wrote the prompt, bos included.
    `examples` are the SHA-256 of texts that stand in it as examples.
    """

    template: str
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    text_lead: str
    rendered: bool = False
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextLimit:
    """The most tokens a text may have, and which end is cut off a longer one (`end`, `start`)."""

    tokens: int
    truncate: str


@dataclass(frozen=True)
class Source:
    """Where the weights come from. `directory` is None for a hub id.

    `adapter` is the LoRA adapter that was merged into them, a directory or a hub id, and
    `adapter_sha256` the hash of its configuration and weights; both None where there was none.
    """

    model: str
    revision: str | None
    directory: str | None
    architecture: str
    config_sha256: str
    notice: str | None
    adapter: str | None = None
    adapter_sha256: str | None = None


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
    `tolerance` is what the largest logit difference had to stay under, None where only the
    agreement counts, of which at least `agreement_tolerance` was asked.
    """

    texts: int
    max_logit_difference: float
    mean_logit_difference: float
    max_probability_difference: float
    agreement: float
    tolerance: float | None
    agreement_tolerance: float = 1.0


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
class Variant:
    """One numeric form of the model. `files` are paths of the bundle's files that it needs.

    `operators` are the operator sets that its graph uses: `ai.onnx` alone is portable.
    `weight_error` is the largest relative error of a weight matrix, the norm of the difference by
    the norm of the matrix; None where weights were not quantised. `parity` is None while the build
    is measuring it, and where `trimexport fit` put another head since. `engine` is what was built
    of the graph for TensorRT, if anything was.
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


@dataclass(frozen=True)
class Calibration:
    """A bias per label that `trimexport calibrate` added behind the logits of every variant.

    `method` is `content-free`, `batch` or `prior`, `texts` how many it was found on, `variant` what
    answered them. `bias` is float32, in the labels' order; `prior` the labels' shares that were
    asked for.
    """

    method: str
    texts: int
    bias: tuple[float, ...]
    prior: Mapping[str, float] | None
    variant: str


@dataclass(frozen=True)
class Fit:
    """How `trimexport fit` found the head that stands in the place of the label words' rows.

    `examples` counts them by label, `examples_sha256` is of their texts and labels. `shots` of each
    label were drawn with `seed`, where they are not None. `strength` is the regression's C, and
    `accuracy` what that got in cross-validation with `folds`. `variant` gave the hidden states.
    """

    examples: Mapping[str, int]
    examples_sha256: str
    shots: int | None
    seed: int | None
    strength: float
    accuracy: float
    folds: int
    variant: str


@dataclass(frozen=True)
class Manifest:
    """`trimexport.json` as a value."""

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

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels in the order of the logits."""
        return tuple(label.name for label in self.labels)

    def variant(self, name: str | None = None) -> Variant:
        """The variant called `name`, or the first.

        Raises:
            BundleError: the bundle holds no such variant.
        """
        if name is None:
            return self.variants[0]
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.variants)
        raise BundleError(f'the bundle has no variant "{name}"; it has: {names}')


def to_json(manifest: Manifest) -> str:
    """The manifest as the text of `trimexport.json`."""
    return json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n"


def read_manifest(bundle: Path) -> Manifest:
    """Read `trimexport.json` of the bundle in directory `bundle`.

    Raises:
        BundleError: no bundle there, or its manifest is not what this runtime can read.
        VersionError: the manifest's `format_version` is newer than `FORMAT_VERSION`.
    """
    path = bundle / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "is not a bundle: it has no " + MANIFEST if bundle.is_dir() else "does not exist"
        hint = "give the directory that `trimexport build -o` wrote"
        raise BundleError(f"{bundle} {what}; {hint}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read: {error}; build the bundle again") from None
    if not isinstance(raw, dict) or not is_int(raw.get("format_version")):
        raise BundleError(
            f"{path} has no format_version, so it is not a trimexport manifest; "
            "give the directory that `trimexport build -o` wrote"
        )
    if raw["format_version"] > FORMAT_VERSION:
        raise VersionError(
            f"{path} has format_version {raw['format_version']}, this runtime reads up to "
            f"{FORMAT_VERSION}; upgrade with `pip install -U trimexport-runtime`"
        )
    try:
        return _manifest(raw)
    except KeyError as error:
        raise BundleError(f"{path} is damaged (no {error}); build the bundle again") from None
    except (TypeError, ValueError) as error:
        raise BundleError(f"{path} is damaged ({error}); build the bundle again") from None


def _variant(raw: Any) -> Variant:
    parts = raw if isinstance(raw, dict) else {}
    parity, engine = parts.get("parity"), parts.get("engine")
    variant = known(
        Variant,
        raw,
        parity=None if parity is None else known(Parity, parity),
        engine=None if engine is None else _engine(engine),
    )
    for path in (variant.graph, *variant.files):
        inside(path)
    return variant


def _engine(raw: Any) -> Engine:
    profiles = raw.get("profiles", ()) if isinstance(raw, dict) else ()
    engine = known(Engine, raw, profiles=tuple(known(Profile, item) for item in profiles))
    inside(engine.file)
    shapes = [shape for it in engine.profiles for shape in (it.opt, it.max)]
    if not shapes or any(len(shape) != 2 or min(shape) < 1 for shape in shapes):
        raise ValueError(f"the engine {engine.file} has profiles {shapes}")
    return engine


def _file(raw: Any) -> BundleFile:
    entry = known(BundleFile, raw)
    inside(entry.path)
    return entry


def _text_limit(raw: Any) -> TextLimit:
    limit = known(TextLimit, raw)
    if limit.tokens < 1 or limit.truncate not in ("end", "start"):
        raise ValueError(f"the text limit is {limit.tokens} tokens, cut at {limit.truncate!r}")
    return limit


def _calibration(raw: Any, labels: int) -> Calibration:
    calibration = known(Calibration, raw)
    if len(calibration.bias) != labels:
        raise ValueError(f"the calibration has {len(calibration.bias)} numbers, not {labels}")
    return calibration


def _manifest(raw: Mapping[str, Any]) -> Manifest:
    calibration, fit = raw.get("calibration"), raw.get("fit")
    manifest = known(
        Manifest,
        raw,
        labels=tuple(known(Label, item) for item in raw["labels"]),
        prompt=known(Prompt, raw["prompt"]),
        text_limit=_text_limit(raw["text_limit"]),
        source=known(Source, raw["source"]),
        variants=tuple(_variant(item) for item in raw["variants"]),
        files=tuple(_file(item) for item in raw["files"]),
        calibration=None if calibration is None else _calibration(calibration, len(raw["labels"])),
        fit=None if fit is None else known(Fit, fit),
    )
    if len(manifest.labels) < 2 or not manifest.variants:
        raise ValueError("it needs two labels and one variant at least")
    if len(set(manifest.label_names)) < len(manifest.labels):
        raise ValueError("two labels have the same name")
    return manifest
