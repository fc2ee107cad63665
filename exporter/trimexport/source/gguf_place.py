"""Which files are a GGUF model."""

from __future__ import annotations

import re
from pathlib import Path

from trimexport.errors import CheckpointError

MAGIC = b"GGUF"
_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def is_gguf(place: Path) -> bool:
    """Whether a checkpoint's place is a GGUF file: the others are directories."""
    return place.is_file()


def is_named_gguf(file: Path) -> bool:
    """Whether a file is a GGUF, or ought to be one: by its name or by how it begins."""
    if file.suffix == ".gguf":
        return True
    try:
        with file.open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def gguf_in(directory: Path) -> Path | None:
    """The GGUF file of a directory that holds one model as such, and no safetensors.

    Raises:
        CheckpointError: there are several.
    """
    if any(directory.glob("*.safetensors")):
        return None
    found = sorted(directory.glob("*.gguf"))
    models = [it for it in found if not (match := _SPLIT.fullmatch(it.name)) or int(match[2]) == 1]
    if len(models) > 1:
        raise CheckpointError(
            f"{directory} has {len(models)} GGUF files, {', '.join(it.name for it in models)}; "
            "name the file that you mean with --model"
        )
    return next(iter(models or found), None)


def gguf_parts(file: Path) -> tuple[Path, ...]:
    """All parts of a split model, in their order, or the file alone.

    Raises:
        CheckpointError: a part is missing.
    """
    match = _SPLIT.fullmatch(file.name)
    if match is None:
        return (file,)
    stem, count = match[1], int(match[3])
    parts = [file.with_name(f"{stem}-{n:05d}-of-{count:05d}.gguf") for n in range(1, count + 1)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise CheckpointError(
            f"{file} is one of {count} parts, of which {len(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not beside it ({', '.join(missing)}); "
            "download what is missing"
        )
    return tuple(parts)
