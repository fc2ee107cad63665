"""Labelled texts for tests of tuning, and what may happen while a bundle is written."""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from trimexport import Texts

LABELS = ("positive", "negative", "neutral")
WORDS = (
    ("gorgeous", "witty", "warm", "funny", "great"),
    ("dull", "awful", "tedious", "cold", "wrong"),
    ("Monday", "oil", "prices", "bank", "report"),
)
FRAMES = ("a {} and {} thing", "it is {} , {} indeed", "so {} that it is {}", "{} or {}")


def made(frames: tuple[str, ...] = FRAMES) -> Texts:
    """20 texts of each label for each frame, in no order of labels."""
    rows = [
        (frame.format(*pair), label)
        for frame in frames
        for pairs in zip(*(itertools.permutations(words, 2) for words in WORDS), strict=True)
        for label, pair in zip(LABELS, pairs, strict=True)
    ]
    texts, gold = zip(*rows, strict=True)
    return Texts(texts, gold)


def write_rows(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def rows_of(data: Texts) -> list[tuple[str, str]]:
    return list(zip(data.texts, data.gold or (), strict=True))


class Interrupted:
    """Progress that is interrupted when a span of work ends."""

    def __init__(self, at: str) -> None:
        self.at = at

    def say(self, line: str) -> None: ...

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda _: self._tick(what)

    def _tick(self, what: str) -> None:
        if what == self.at:
            raise KeyboardInterrupt


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let no file be larger, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
