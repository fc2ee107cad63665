"""Write a task pack: one zip with a manifest and the arrays of a backbone's further inputs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimexport.errors import OutputError
from trimexport_runtime.bundle import Manifest
from trimexport_runtime.pack import ARRAY, FORMAT_VERSION, PACK

Arrays = Mapping[str, npt.NDArray[Any]]

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # so that the same task makes the same file


@dataclass(frozen=True)
class Said:
    """What a pack says that the runtime does not need: `notes` for whoever reads it, how a bundle's
    tokenizer.json differs from the backbone's (see `tokenizer_changes`), `text_lead`, the white
    space that such a tokenizer writes before each text, and `learned`, the SHA-256 of texts that
    its head was fitted on."""

    notes: tuple[str, ...] = ()
    text_lead: str = ""
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    learned: tuple[str, ...] = ()


def read_pack_head(path: Path) -> tuple[str, Said]:
    """The SHA-256 of a pack's backbone, and what it says besides; nothing where another program
    wrote it.

    Requires: a pack (see `trimexport_runtime.pack.read_pack`).
    """
    with zipfile.ZipFile(path) as archive:
        raw = json.loads(archive.read(PACK))
    said = Said(
        notes=tuple(raw.get("notes", ())),
        text_lead=raw.get("text_lead", ""),
        tokenizer=raw.get("tokenizer", {}),
        learned=tuple(raw.get("learned", ())),
    )
    return raw["backbone"], said


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a pack, as `write_pack` takes them.

    Requires: a pack whose members are whole (see `trimexport_runtime.pack.check_pack`).
    """
    with zipfile.ZipFile(path) as archive:
        return {
            name.removesuffix(ARRAY): np.lib.format.read_array(
                io.BytesIO(archive.read(name)), allow_pickle=False
            )
            for name in archive.namelist()
            if name != PACK
        }


@contextlib.contextmanager
def staged_pack(output: Path) -> Iterator[Path]:
    """A new file's path beside `output`, which becomes `output` when the block ends well. If it
    ends in any other way an old `output` stays as it was.

    Raises:
        OutputError: it cannot be written.
    """
    part = output.with_name(f".trimexport-{uuid.uuid4().hex[:12]}.partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(output)
    except OSError as error:
        if error.filename not in (None, str(part), str(output), str(output.parent)):
            raise
        raise OutputError(
            f"{output} cannot be written ({error.strerror or error}); nothing was kept. Name "
            "another file with -o"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def check_pack_output(path: Path, force: bool) -> None:
    """Refuse a pack's place before any work is done.

    Raises:
        OutputError: something is there and `force` is not given, or it is a directory.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a directory, and a pack is one file; name a file with -o")
    if path.exists() and not force:
        raise OutputError(f"{path} exists; give --force to replace it, or another file with -o")


def write_pack(
    path: Path,
    backbone: str,
    manifest: Manifest,
    arrays: Arrays,
    said: Said | None = None,
) -> None:
    """Write a pack, which replaces what is at `path`.

    Args:
        backbone: the SHA-256 of the backbone that it is of.
        arrays: by the member's name without `.npy`: an input of the graph, with a variant and a
            slash before it where it is that one's alone.
        said: what the runtime does not need.

    Raises:
        OSError: disk full and the like.
    """
    members = {f"{name}{ARRAY}": _bytes(array) for name, array in arrays.items()}
    described = {
        "format_version": FORMAT_VERSION,
        "backbone": backbone,
        **asdict(said or Said()),
        "sha256": {name: hashlib.sha256(raw).hexdigest() for name, raw in members.items()},
        "manifest": asdict(manifest),
    }
    text = json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, raw in {PACK: text.encode(), **members}.items():
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), raw)


def _bytes(array: npt.NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()
