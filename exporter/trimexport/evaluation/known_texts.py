"""Texts that a bundle knows with their labels, so that they do not show how good it is: examples in
its prompt, and what its head was fitted on. A bundle records hashes of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from trimexport.texts import text_sha256
from trimexport_runtime.bundle import Prompt
from trimexport_runtime.inputs import Input

LEARNED = "reports/fit-examples.txt"
"""Where a bundle records what its head was fitted on."""


def shown_as_examples(prompt: Prompt, texts: Collection[Input]) -> frozenset[Input]:
    """Those of `texts` that stand in a bundle's prompt as examples."""
    recorded = set(prompt.examples)
    return frozenset(text for text in texts if text_sha256(text) in recorded)


def learned_from(path: Path, texts: Collection[Input]) -> frozenset[Input]:
    """Those of `texts` that `write_learned` recorded in a file; none if there is no file."""
    recorded = _recorded(path)
    return frozenset(text for text in texts if text_sha256(text) in recorded)


def write_learned(texts: Sequence[Input], before: Path, path: Path) -> None:
    """Record in `path` what a head was fitted on, and what the file `before` records of the head
    that it started from: the SHA-256 of each text, a line each."""
    hashes = sorted({*map(text_sha256, texts), *_recorded(before)})
    path.write_text("".join(f"{digest}\n" for digest in hashes), encoding="ascii")


def _recorded(path: Path) -> frozenset[str]:
    return frozenset(path.read_text(encoding="ascii").split() if path.is_file() else ())
