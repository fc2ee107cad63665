"""The manifest of a backbone, `backbone.json`: a model without a task, which packs complete.

The exporter writes it and the runtime reads it, as they do a bundle's manifest (see `bundle`):
unknown keys are ignored, and a newer `format_version` is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ._manifest_json import check_format, check_inside, read
from .errors import BundleError
from .manifest import BundleFile, Source, Variant

BACKBONE = "backbone.json"
BACKBONE_FORMAT = 1
_HINT = "give the directory that `trimexport build --backbone -o` wrote"


@dataclass(frozen=True)
class BackboneManifest:
    """`backbone.json` as a value.

    `sha256` says which backbone it is, and is that of its files (`backbone_sha256`): a pack fits
    the backbone of one value. `limit` is the most positions of prefix, text and what stands behind
    it together. The variants have no parity, which packs are proved by.
    """

    format_version: int
    sha256: str
    source: Source
    variants: tuple[Variant, ...]
    files: tuple[BundleFile, ...]
    limit: int
    pad_token_id: int
    tool_versions: Mapping[str, str] = field(default_factory=dict)


def backbone_sha256(files: Iterable[BundleFile]) -> str:
    """The SHA-256, in hexadecimal, of a line `path sha256` for each file, the lines sorted."""
    lines = sorted(f"{entry.path} {entry.sha256}\n" for entry in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def backbone_json(manifest: BackboneManifest) -> str:
    """The manifest as the text of `backbone.json`."""
    return json.dumps(asdict(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def is_backbone(directory: Path) -> bool:
    """Whether `directory` has a backbone's manifest."""
    return (directory / BACKBONE).is_file()


def read_backbone_manifest(directory: Path) -> BackboneManifest:
    """Read `backbone.json` of the backbone in `directory`.

    Raises:
        BundleError: no backbone there, or its manifest is not what this runtime can read.
        VersionError: the manifest's `format_version` is newer than `BACKBONE_FORMAT`.
    """
    path = directory / BACKBONE
    raw = _document(directory, path)
    check_format(raw, path, BACKBONE_FORMAT, _HINT, what="a backbone's manifest")
    try:
        manifest: BackboneManifest = read(BackboneManifest, raw)
        _check(manifest)
    except ValueError as error:
        raise BundleError(f"{path} is damaged ({error}); build the backbone again") from None
    return manifest


def _document(directory: Path, path: Path) -> Any:
    """The JSON value of the file `path` in `directory`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = (
            "is not a backbone: it has no " + BACKBONE if directory.is_dir() else "does not exist"
        )
        raise BundleError(f"{directory} {what}; {_HINT}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read: {error}; build the backbone again") from None


def _check(manifest: BackboneManifest) -> None:
    """Check what the types of the fields leave open.

    Raises:
        ValueError: a value that is not allowed, or one that contradicts another.
    """
    if not manifest.variants:
        raise ValueError("it needs one variant at least")
    if manifest.limit < 1:
        raise ValueError(f"the limit is {manifest.limit} positions")
    paths = [entry.path for entry in manifest.files]
    paths += [path for it in manifest.variants for path in (it.graph, *it.files)]
    for path in paths:
        check_inside(path, "backbone")
    if manifest.sha256 != backbone_sha256(manifest.files):
        raise ValueError("its sha256 is not that of its files")
