"""Whether a bundle's files are those of its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from .backbone_manifest import BackboneManifest
from .bundle import Engine, Manifest
from .errors import IntegrityError

_BLOCK = 1 << 20  # bytes hashed at a time


def check_files(
    bundle: Path,
    manifest: Manifest | BackboneManifest,
    *,
    hashes: bool,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Compare the files of a bundle or a backbone with its manifest: presence and size, and with
    `hashes` content.

    Args:
        advance: called while hashing, with the number of bytes hashed since the last call.

    Raises:
        IntegrityError: naming the first file that is missing, truncated or altered.
    """
    again = "copy the bundle again or rebuild it"
    for entry in manifest.files:
        path = bundle / entry.path
        try:
            if not path.is_file():
                raise IntegrityError(f"{path} is missing from the bundle; {again}")
            size = path.stat().st_size
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read ({error.strerror}); {again}") from None
        if size != entry.bytes:
            raise IntegrityError(
                f"{path} has {size:,} bytes, the manifest says {entry.bytes:,}; {again}"
            )
    for entry in manifest.files if hashes else ():
        path = bundle / entry.path
        try:
            digest = sha256_of(path, advance)
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read ({error.strerror}); {again}") from None
        if digest != entry.sha256:
            raise IntegrityError(f"{path} was altered: its SHA-256 is not the manifest's; {again}")


def sha256_of(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file, in hexadecimal. `advance` is called with the size of each block."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            if advance:
                advance(len(block))
    return digest.hexdigest()


def check_engine(
    bundle: Path,
    engine: Engine,
    *,
    hashes: bool,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Compare an engine with the manifest, as `check_files` does the other files.

    Raises:
        IntegrityError: the engine is missing, or is not the one of the manifest.
    """
    path = bundle / engine.file
    again = f"build it again with `trimexport-run build-engines {bundle}`"
    if not path.is_file():
        raise IntegrityError(f"{path} is missing from the bundle; {again}")
    if path.stat().st_size != engine.bytes:
        raise IntegrityError(f"{path} is not the engine that the manifest names; {again}")
    if hashes and sha256_of(path, advance) != engine.sha256:
        raise IntegrityError(f"{path} was altered: its SHA-256 is not the manifest's; {again}")
