"""What a GGUF file says before its numbers: metadata, and where each tensor lies
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

The header is read here, and not by the `gguf` library, whose reader makes an object of every token
of the vocabulary: half a minute and 700 MB for Gemma 3's 262,144.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from trimexport.errors import CheckpointError, UnsupportedError

from .gguf_blocks import readable_forms
from .gguf_place import MAGIC, gguf_parts
from .json_file import unreadable
from .tensor_files import TensorEntry

_VERSIONS = (2, 3)
_SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LONGEST = 4096  # of the arrays that are kept; those of a vocabulary are for its tokenizer
_START = 4096  # bytes of each tensor that tell a file from another


@dataclass(frozen=True)
class GgufHeader:
    """One model's GGUF files, opened. Holds no weights.

    `files` are its parts in their order, mostly one. `metadata` are those of the first; an array of
    strings, or a long one, is None there. `tensors` are under llama.cpp's names, with ggml's name
    for their type as dtype, and their shapes as PyTorch has them: outputs, inputs.
    """

    files: tuple[Path, ...]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]

    @property
    def file(self) -> Path:
        """The first part, by which the model is named."""
        return self.files[0]


def read_gguf_header(file: Path) -> GgufHeader:
    """Open a GGUF file, and the other parts if it is one of several.

    Raises:
        CheckpointError: a part is missing, no GGUF, or ends early.
        UnsupportedError: an adapter, a vision tower or whatever else is no language model, or
            tensors of a type that cannot be read.
    """
    files = gguf_parts(file)
    metadata: dict[str, Any] = {}
    tensors: dict[str, TensorEntry] = {}
    for number, part in enumerate(files):
        found, entries = _read_part(part)
        metadata = metadata or found
        if found.get("split.no", number) != number or found.get("split.count", 1) != len(files):
            raise CheckpointError(
                f"{part} says that it is part {found.get('split.no', 0) + 1} of "
                f"{found.get('split.count', 1)}, and is part {number + 1} of {len(files)} by its "
                "name; give the parts the names that they were published with"
            )
        tensors |= entries
    header = GgufHeader(files, metadata, tensors)
    _refuse_what_is_no_model(header)
    return header


def gguf_sha256(header: GgufHeader) -> str:
    """A hash that tells this model's files from others: of all that stands before the numbers, and
    of the first 4,096 bytes of each tensor."""
    digest = hashlib.sha256()
    for part in header.files:
        entries = sorted(
            (it for it in header.tensors.values() if it.file == part), key=lambda it: it.offset
        )
        with part.open("rb", buffering=0) as stream:
            digest.update(stream.read(entries[0].offset if entries else -1))
            for entry in entries:
                stream.seek(entry.offset)
                digest.update(stream.read(min(entry.bytes, _START)))
    return digest.hexdigest()


def _read_part(file: Path) -> tuple[dict[str, Any], dict[str, TensorEntry]]:
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as data:
            return _Reader(file, data).read()
    except OSError as error:
        raise unreadable(file, error) from None
    except ValueError as error:  # an empty file cannot be mapped
        raise CheckpointError(f"{file} is empty or damaged ({error}); download it again") from None
    except (struct.error, OverflowError):
        raise CheckpointError(
            f"{file} ends inside its header, so it is truncated; download it again"
        ) from None


class _Reader:
    """Reads a header from its start to its end."""

    def __init__(self, file: Path, data: mmap.mmap) -> None:
        self.file = file
        self.data = data
        self.at = 0

    def read(self) -> tuple[dict[str, Any], dict[str, TensorEntry]]:
        """The metadata and the tensors."""
        self._check_kind()
        count, keys = self._take("QQ")
        metadata = {}
        for _ in range(keys):
            key = self._string()
            metadata[key] = self._value(self._take("I")[0])
        infos = [self._info() for _ in range(count)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"general.alignment is {alignment}")
        start = -(-self.at // alignment) * alignment
        return metadata, {
            name: self._entry(name, start, shape, kind, offset)
            for name, shape, kind, offset in infos
        }

    def _check_kind(self) -> None:
        found = self.data[: len(MAGIC)]
        if found != MAGIC:
            raise CheckpointError(
                f"{self.file} is no GGUF file: it begins with {found!r} instead of {MAGIC!r}; "
                "download it again, or name another with --model"
            )
        self.at = len(MAGIC)
        (version,) = self._take("I")
        if version not in _VERSIONS:
            big = version and not version & 0xFFFF
            what = "is written for big-endian machines" if big else f"is GGUF version {version}"
            raise UnsupportedError(
                f"{self.file} {what}; little-endian files of version 2 and 3 are read: convert the "
                "model again with a current llama.cpp"
            )

    def _take(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return found

    def _string(self) -> str:
        (length,) = self._take("Q")
        (found,) = self._take(f"{length}s")
        return str(found, "utf-8", "replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        return self._take(_scalar(kind))[0]

    def _array(self) -> list[Any] | None:
        """The array, or None for one that is long or not of numbers."""
        kind, count = self._take("IQ")
        if kind == _STRING:
            for _ in range(count):
                (length,) = self._take("Q")
                self.at += length
            return None
        layout = _scalar(kind)
        if count > _LONGEST:
            self.at += count * struct.calcsize("<" + layout)
            return None
        return list(self._take(f"{count}{layout}"))

    def _info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        (dimensions,) = self._take("I")
        shape = tuple(reversed(self._take(f"{dimensions}Q")))
        kind, offset = self._take("IQ")
        return name, shape, kind, offset

    def _entry(
        self, name: str, start: int, shape: tuple[int, ...], kind: int, offset: int
    ) -> TensorEntry:
        """Where a tensor lies, after a look whether all of it is there and can be read."""
        known = readable_forms(self.file)
        if kind not in known:
            raise UnsupportedError(
                f"tensor {name} of {self.file} is of ggml's type {kind}, which cannot be read; "
                f"{', '.join(sorted(it.name for it in known.values()))} can: take the file in "
                "another quantisation"
            )
        form = known[kind]
        if not shape or prod(shape) < 1 or shape[-1] % form.numbers:
            raise ValueError(f"tensor {name} is {list(shape)}, in blocks of {form.numbers}")
        size = prod(shape) // form.numbers * form.bytes
        if start + offset + size > len(self.data):
            raise CheckpointError(
                f"{self.file} ends inside tensor {name}, so it is truncated; download it again"
            )
        return TensorEntry(self.file, form.name, shape, start + offset, size)


def _scalar(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"a value of the unknown type {kind}")
    return _SCALARS[kind]


def _refuse_what_is_no_model(header: GgufHeader) -> None:
    kind = header.metadata.get("general.type", "model")
    name = header.metadata.get("general.architecture")
    if kind == "adapter":
        raise UnsupportedError(
            f"{header.file} is a LoRA adapter and no model; give the model with --model, and the "
            "adapter in peft's format with --adapter"
        )
    if kind == "mmproj" or name == "clip":
        raise UnsupportedError(
            f"{header.file} is the vision tower of a multimodal model (mmproj), which has no part "
            "in classifying texts; give the language model's file"
        )
    if kind != "model":
        raise UnsupportedError(f"{header.file} holds no model (general.type {kind}); give one")
