"""The bundle's manifest, `trimexport.json`, read and written.

The exporter writes it and the runtime reads it, both through the classes of `manifest`. Unknown
keys are ignored, so that an older runtime reads what a newer exporter adds; a newer
`format_version` is refused, because it means that the old fields no longer suffice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ._manifest_json import check_format, check_inside, read
from .backbone_manifest import is_backbone
from .errors import BundleError
from .labels import Calibration, Fit, Label, Question
from .manifest import (
    FOR_TENSORRT,
    INPUTS,
    OUTPUT,
    BundleFile,
    Engine,
    Field,
    Manifest,
    Parity,
    Profile,
    Prompt,
    Source,
    TakenOver,
    TextLimit,
    Variant,
)
from .questions import flat_name
from .score import INDEPENDENT, KINDS, LOG_ODDS, LOGIT, SOFTMAX, Score

__all__ = [
    "FORMAT_VERSION",
    "FOR_TENSORRT",
    "INDEPENDENT",
    "INPUTS",
    "KINDS",
    "LOGIT",
    "LOG_ODDS",
    "MANIFEST",
    "OUTPUT",
    "PACK_SUFFIX",
    "SOFTMAX",
    "BundleFile",
    "Calibration",
    "Engine",
    "Field",
    "Fit",
    "Label",
    "Manifest",
    "Parity",
    "Profile",
    "Prompt",
    "Question",
    "Score",
    "Source",
    "TakenOver",
    "TextLimit",
    "Variant",
    "format_for",
    "manifest_of",
    "read_manifest",
    "to_json",
]

FORMAT_VERSION = 3
MANIFEST = "trimexport.json"
PACK_SUFFIX = ".pack"


def format_for(prompt: Prompt, score: Score, questions: Sequence[Question] = ()) -> int:
    """The oldest format that says all there is to say of a bundle. Runtimes that know format 1
    alone would read several fields as one, and any score as a softmax; those that know 2 would take
    the labels of several questions for those of one."""
    if questions:
        return 3
    plain = prompt.places == (Field("text"),)
    return 1 if plain and score.kind == SOFTMAX else 2


def to_json(manifest: Manifest) -> str:
    """The manifest as the text of `trimexport.json`."""
    return json.dumps(asdict(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_manifest(bundle: Path) -> Manifest:
    """Read `trimexport.json` of the bundle in directory `bundle`.

    Raises:
        BundleError: no bundle there, or its manifest is not what this runtime can read.
        VersionError: the manifest's `format_version` is newer than `FORMAT_VERSION`.
    """
    path = bundle / MANIFEST
    raw = _document(bundle, path)
    check_format(raw, path, FORMAT_VERSION, "give the directory that `trimexport build -o` wrote")
    try:
        return manifest_of(raw)
    except ValueError as error:
        raise BundleError(f"{path} is damaged ({error}); build the bundle again") from None


def manifest_of(raw: Any) -> Manifest:
    """The manifest that a JSON value is, as `json.loads` gave it.

    Raises:
        ValueError: a value is missing, of another type, not allowed, or contradicts another.
    """
    manifest: Manifest = read(Manifest, raw)
    _check(manifest)
    return manifest


def _document(bundle: Path, path: Path) -> Any:
    """The JSON value of the file `path` in `bundle`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise _no_bundle(bundle) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read: {error}; build the bundle again") from None


def _no_bundle(path: Path) -> BundleError:
    """What to say of a path where no bundle is: what it is, and what to give."""
    if is_backbone(path):
        return BundleError(
            f"{path} is a backbone, which answers nothing without a task; give --task FILE (to "
            'serve, --packs DIRECTORY), or Classifier.load(backbone, task="FILE.pack")'
        )
    if path.suffix == PACK_SUFFIX and path.is_file():
        return BundleError(
            f"{path} is a task pack, which runs on its backbone; give that directory, and the pack "
            "with --task"
        )
    if path.is_dir():
        what = f"is not a bundle: it has no {MANIFEST}"
    else:
        what = "is a file, and a bundle is a directory" if path.exists() else "does not exist"
    return BundleError(f"{path} {what}; give the directory that `trimexport build -o` wrote")


def _check(manifest: Manifest) -> None:
    """Check what the types of a manifest's fields leave open.

    Raises:
        ValueError: a value that is not allowed, or one that contradicts another.
    """
    _check_score(manifest)
    _check_questions(manifest)
    if not manifest.variants:
        raise ValueError("it needs one variant at least")
    if len(set(manifest.label_names)) < len(manifest.labels):
        raise ValueError("two labels have the same name")
    limit, calibration = manifest.text_limit, manifest.calibration
    if limit.tokens < 1 or limit.truncate not in ("end", "start"):
        raise ValueError(f"the text limit is {limit.tokens} tokens, cut at {limit.truncate!r}")
    names = [it.name for it in manifest.prompt.places]
    if len(set(names)) < len(names) or (limit.field or names[-1]) not in names:
        raise ValueError(f"the prompt has the fields {names}, of which {limit.field!r} is cut")
    if all(it.default is not None for it in manifest.prompt.places):
        raise ValueError(f"of the prompt's fields {names} none has to be given")
    if calibration is not None and len(calibration.bias) != len(manifest.labels):
        raise ValueError(
            f"the calibration has {len(calibration.bias)} numbers, not {len(manifest.labels)}"
        )
    for entry in manifest.files:
        check_inside(entry.path)
    for variant in manifest.variants:
        for path in (variant.graph, *variant.files):
            check_inside(path)
        if variant.engine is not None:
            _check_engine(variant.engine)
        taken = variant.taken_over
        if taken is not None and not 0 <= taken.matrices <= taken.of:
            raise ValueError(f"variant {variant.name} has taken {taken.phrase} over")


def _check_score(manifest: Manifest) -> None:
    """Refuse a score that is not known, or that does not fit the labels."""
    score, count = manifest.score, len(manifest.labels)
    if score.kind not in KINDS:
        raise ValueError(f"the score is {score.kind!r}, not one of {', '.join(KINDS)}")
    least = 2 if score.kind in (SOFTMAX, LOG_ODDS) else 1
    most = {LOG_ODDS: 2, LOGIT: 1}.get(score.kind)
    if count < least or (most is not None and count > most):
        raise ValueError(f"{count} labels do not fit the score {score.kind!r}")
    if not score.sigmoid and score.kind in (SOFTMAX, LOG_ODDS):
        raise ValueError(f"the score {score.kind!r} is of probabilities and has no sigmoid")
    if not 0 <= score.threshold <= 1:
        raise ValueError(f"the score's threshold is {score.threshold}, not from 0 to 1")


def _check_questions(manifest: Manifest) -> None:
    """Refuse questions that contradict the labels, or each other."""
    questions = manifest.questions
    names = [question.name for question in questions]
    if len(set(names)) < len(names):
        raise ValueError("two questions have the same name")
    flat = tuple(flat_name(it.name, label.name) for it in questions for label in it.labels)
    if questions and manifest.label_names != flat:
        raise ValueError(f"the labels {list(manifest.label_names)} are not {list(flat)}")
    for it in questions:
        if len({label.name for label in it.labels}) < max(2, len(it.labels)):
            raise ValueError(f"the question {it.name!r} needs two labels of different names")
        if it.calibration is not None and len(it.calibration.bias) != len(it.labels):
            raise ValueError(f"the calibration of {it.name!r} does not fit its labels")


def _check_engine(engine: Engine) -> None:
    check_inside(engine.file)
    shapes = [shape for profile in engine.profiles for shape in (profile.opt, profile.max)]
    if not shapes or any(len(shape) != 2 or min(shape) < 1 for shape in shapes):
        raise ValueError(f"the engine {engine.file} has profiles {shapes}")
