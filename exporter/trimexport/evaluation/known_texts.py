"""Texts that a bundle knows with their labels, so that they do not show how good it is: examples in
its prompt, and what its head was fitted on. A bundle records hashes of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from trimexport.records import text_sha256
from trimexport_runtime.bundle import Prompt
from trimexport_runtime.inputs import Input

LEARNED = "reports/fit-examples.txt"
"""Where a bundle records what its head was fitted on. A pack does so in itself."""


def shown_as_examples(prompt: Prompt, texts: Collection[Input]) -> frozenset[Input]:
    """Those of `texts` that stand in a bundle's prompt as examples."""
    recorded = set(prompt.examples)
    return frozenset(text for text in texts if text_sha256(text) in recorded)


def learned_from(recorded: Collection[str], texts: Collection[Input]) -> frozenset[Input]:
    """Those of `texts` whose SHA-256 is recorded."""
    return frozenset(text for text in texts if text_sha256(text) in recorded)


def learned_with(texts: Sequence[Input], before: Collection[str]) -> tuple[str, ...]:
    """What is to be recorded of a head that was fitted on texts: the SHA-256 of each, and those
    that were recorded of the head that it started from."""
    return tuple(sorted({*map(text_sha256, texts), *before}))


def write_learned(hashes: Sequence[str], path: Path) -> None:
    """Record hashes in a file, a line each."""
    path.write_text("".join(f"{digest}\n" for digest in hashes), encoding="ascii")


def read_learned(path: Path) -> frozenset[str]:
    """The hashes that `write_learned` recorded in a file; none if there is no file."""
    return frozenset(path.read_text(encoding="ascii").split() if path.is_file() else ())
