"""A task pack: one file with what a task adds to the backbone that it runs on.

It is a zip whose members are stored as they are: `pack.json`, and an array for each further input
of the backbone's graph, `NAME.npy` for all variants or `VARIANT/NAME.npy` for one, which goes
before. `pack.json` has the format's version, the hash of the backbone, the hash of each member, and
the manifest of the task, which is like a bundle's and has no files.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ._manifest_json import check_format, read
from .bundle import Manifest, manifest_of
from .errors import PackError

FORMAT_VERSION = 1
PACK = "pack.json"
ARRAY = ".npy"
DTYPES = ("float16", "float32", "int64")
"""What a pack's arrays are made of."""

_AGAIN = "copy the pack again, or write it again with `trimexport pack`"
_BROKEN = (zipfile.BadZipFile, EOFError, struct.error, ValueError, NotImplementedError, MemoryError)

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Pack:
    """A task pack without its arrays. `backbone` is the SHA-256 of the one that it runs on, and
    `members` those of its arrays' files, by their names in the zip. `notes` are for people."""

    path: Path
    backbone: str
    manifest: Manifest
    members: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Head:
    """`pack.json` without the manifest."""

    backbone: str
    sha256: Mapping[str, str]
    notes: tuple[str, ...] = ()


def read_pack(path: Path) -> Pack:
    """Read what a pack says of itself.

    Raises:
        PackError: it is no pack, or a damaged one.
        VersionError: it needs a newer runtime.
    """
    with _opened(path) as archive:
        return _described(path, archive)


def load_pack(path: Path, variant: str) -> tuple[Pack, Arrays]:
    """Read a pack, and its arrays for a variant of the backbone, by the names of the graph's
    inputs: float16, float32 or int64. Their hashes are checked.

    Raises:
        PackError: it is no pack, or a damaged one.
        VersionError: it needs a newer runtime.
    """
    with _opened(path) as archive:
        pack = _described(path, archive)
        return pack, {
            name: _array(path, member, _content(path, archive, member, pack.members[member]))
            for name, member in members_of(pack, variant).items()
        }


def check_pack(path: Path) -> None:
    """Compare every member of a pack with its hash.

    Raises:
        PackError: one is another, or the pack is damaged otherwise.
        VersionError: it needs a newer runtime.
    """
    with _opened(path) as archive:
        for member, sha256 in _described(path, archive).members.items():
            _content(path, archive, member, sha256)


def members_of(pack: Pack, variant: str) -> dict[str, str]:
    """The members that hold the arrays of a variant, by the arrays' names."""
    found: dict[str, str] = {}
    for member in pack.members:
        folder, slash, name = member.rpartition("/")
        if not slash:
            found.setdefault(name.removesuffix(ARRAY), member)
        elif folder == variant:
            found[name.removesuffix(ARRAY)] = member
    return found


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip in a file.

    Raises:
        PackError: there is none, or a part of it cannot be read, here or in the block.
    """
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            yield archive
    except FileNotFoundError:
        raise PackError(
            f"{path} does not exist; give a file that `trimexport pack -o` wrote"
        ) from None
    except IsADirectoryError:
        raise PackError(
            f"{path} is a directory, and a pack is one file; give one that `trimexport pack -o` "
            "wrote"
        ) from None
    except OSError as error:
        raise PackError(f"{path} cannot be read ({error.strerror or error}); {_AGAIN}") from None
    except _BROKEN as error:
        raise PackError(f"{path} is no pack, or its file was cut ({error}); {_AGAIN}") from None


def _described(path: Path, archive: zipfile.ZipFile) -> Pack:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if PACK not in names:
        raise PackError(f"{path} is no pack: it has no {PACK}; {_AGAIN}")
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise PackError(
                f"{info.filename} in {path} is compressed or encrypted, and the members of packs "
                f"are stored as they are; {_AGAIN}"
            )
    raw = _json(path, archive.read(PACK))
    check_format(raw, path, FORMAT_VERSION, _AGAIN, kind=PackError)
    try:
        head: _Head = read(_Head, raw)
        manifest = manifest_of(raw.get("manifest"))
        if head.sha256.keys() != set(names) - {PACK} or len(set(names)) < len(names):
            raise ValueError(f"it has {_listed(names)}, not {_listed([*head.sha256, PACK])}")
        for name in head.sha256:
            _check_name(name)
    except ValueError as error:
        raise PackError(f"{path} is damaged ({error}); {_AGAIN}") from None
    return Pack(path, head.backbone, manifest, head.sha256, head.notes)


def _json(path: Path, content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PackError(f"{PACK} in {path} cannot be read ({error}); {_AGAIN}") from None


def _listed(names: list[str]) -> str:
    return ", ".join(sorted(names))


def _check_name(member: str) -> None:
    """Refuse a member that is neither `NAME.npy` nor `VARIANT/NAME.npy`."""
    parts = member.removesuffix(ARRAY).split("/")
    if not member.endswith(ARRAY) or len(parts) > 2 or {"", ".", ".."} & set(parts):
        raise ValueError(f'the member "{member}" is no NAME{ARRAY} and no VARIANT/NAME{ARRAY}')


def _content(path: Path, archive: zipfile.ZipFile, member: str, sha256: str) -> bytes:
    content = archive.read(member)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PackError(f"{member} in {path} was altered: its SHA-256 is another; {_AGAIN}")
    return content


def _array(path: Path, member: str, content: bytes) -> npt.NDArray[Any]:
    try:
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except _BROKEN as error:
        raise PackError(f"{member} in {path} is no array ({error}); {_AGAIN}") from None
    if array.dtype.name not in DTYPES:
        raise PackError(
            f"{member} in {path} is of {array.dtype}; a pack's arrays are of {', '.join(DTYPES)}: "
            f"{_AGAIN}"
        )
    return np.ascontiguousarray(array)
