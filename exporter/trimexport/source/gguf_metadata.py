"""The metadata of a GGUF file, key by key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from trimexport.errors import CheckpointError, UnsupportedError

from .gguf_header import GgufHeader

_Value = TypeVar("_Value", int, float, str)


@dataclass(frozen=True)
class Metadata:
    """Reads the keys of one architecture."""

    header: GgufHeader
    prefix: str

    def get(self, key: str, kind: type[_Value], default: _Value | None = None) -> _Value:
        """The value of `prefix.key`.

        Raises:
            CheckpointError: it is missing and has no default.
            UnsupportedError: it is no single value of that kind.
        """
        name = f"{self.prefix}.{key}"
        value = self.header.metadata.get(name, default)
        if value is None and name not in self.header.metadata:
            raise CheckpointError(
                f"{self.header.file} lacks {name} in its metadata; take a file that llama.cpp's "
                "conversion wrote"
            )
        if kind is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UnsupportedError(
                f"{name} of {self.header.file} is {value}, not one value for all layers; such "
                "models cannot be built"
            )
        return value

    def has(self, key: str) -> bool:
        return f"{self.prefix}.{key}" in self.header.metadata

    @property
    def head_dim(self) -> int:
        width = self.get("embedding_length", int) // max(self.get("attention.head_count", int), 1)
        return self.get("attention.key_length", int, width)
