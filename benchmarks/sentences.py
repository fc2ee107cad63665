"""Sentences to classify, out of a file."""

from __future__ import annotations

from pathlib import Path

from trimexport.texts import read_texts


def read_sentences(path: Path) -> list[str]:
    """The texts of a file, each a string: no columns are asked for that would make fields of it.

    Raises:
        trimexport.SpecError: as `read_texts`.
    """
    return [str(text) for text in read_texts(path).texts]
