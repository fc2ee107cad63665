"""Write a bundle again with other graphs; all else of it stays as it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx

from trimexport.progress import Progress
from trimexport_runtime import Manifest, check_files
from trimexport_runtime.bundle import MANIFEST, BundleFile, to_json
from trimexport_runtime.integrity import sha256_of

from .written_graph import load_graph

CARD = "README.md"
Place = Callable[[Path, Path], None]


def check_bundle(bundle: Path, manifest: Manifest, progress: Progress) -> None:
    """Compare every file with the manifest.

    Raises:
        IntegrityError: one is missing, truncated or altered.
    """
    total = sum(entry.bytes for entry in manifest.files)
    with progress.bar("checking the bundle", total) as tick:
        check_files(bundle, manifest, hashes=True, advance=tick)


def rewrite(
    bundle: Path,
    work: Path,
    manifest: Manifest,
    change: Callable[[onnx.ModelProto], None],
    place: Place,
) -> Manifest:
    """Write the bundle's files into the directory `work`, its graphs changed.

    A graph is every `.onnx` among the manifest's files: those of the variants, and the copy for
    other clients. Engines are of the old graphs, so they are left behind.

    Args:
        change: changes a graph in place.
        place: brings an unchanged file to a new path, `link_file` or `copy_file`.

    Returns:
        the manifest with the new sizes and hashes and without engines, not written yet.

    Raises:
        ExportError: a changed graph is not valid.
        OSError: disk full and the like.
    """
    files = []
    for entry in manifest.files:
        target = work / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".onnx":
            model = load_graph(bundle / entry.path)
            change(model)
            target.write_bytes(model.SerializeToString())
            entry = BundleFile(entry.path, target.stat().st_size, sha256_of(target))
        else:
            place(bundle / entry.path, target)
        files.append(entry)
    sizes = {entry.path: entry.bytes for entry in files}
    old = {entry.path: entry.bytes for entry in manifest.files}
    variants = tuple(
        replace(
            variant,
            engine=None,
            bytes=variant.bytes + sizes[variant.graph] - old[variant.graph],
        )
        for variant in manifest.variants
    )
    return replace(manifest, files=tuple(files), variants=variants)


def dropped_engines(manifest: Manifest) -> tuple[str, ...]:
    """The variants whose engines `rewrite` leaves behind."""
    return tuple(variant.name for variant in manifest.variants if variant.engine is not None)


def write_manifest(manifest: Manifest, work: Path) -> None:
    """Write `trimexport.json`, which makes a bundle of the directory."""
    (work / MANIFEST).write_text(to_json(manifest), encoding="utf-8")


def carry_over(bundle: Path, work: Path, manifest: Manifest) -> None:
    """Bring the files too that the manifest does not list: reports and the card. Engines stay
    behind."""
    engines = (variant.engine for variant in manifest.variants)
    left = {bundle / MANIFEST, *(bundle / engine.file for engine in engines if engine is not None)}
    for path in sorted(bundle.rglob("*")):
        target = work / path.relative_to(bundle)
        if path.is_dir() and not path.is_symlink():
            target.mkdir(exist_ok=True)
        elif path not in left and not target.exists():
            link_file(path, target)


def link_file(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has none."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(source, target, follow_symlinks=False)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file; where the file system can, the two share their blocks until one is changed."""
    try:
        with source.open("rb") as old, target.open("wb") as new:
            while os.copy_file_range(old.fileno(), new.fileno(), 1 << 30):
                pass
    except (AttributeError, OSError):  # not on this system, or not between these places
        shutil.copyfile(source, target)
