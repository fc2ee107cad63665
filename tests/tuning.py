"""Labelled texts for tests of tuning, and what may happen while a bundle is written."""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from trimexport.evaluation.data import Labelled

LABELS = ("positive", "negative", "neutral")
WORDS = (
    ("gorgeous", "witty", "warm", "funny", "great"),
    ("dull", "awful", "tedious", "cold", "wrong"),
    ("Monday", "oil", "prices", "bank", "report"),
)
FRAMES = ("a {} and {} thing", "it is {} , {} indeed", "so {} that it is {}", "{} or {}")


def made(frames: tuple[str, ...] = FRAMES) -> Labelled:
    """20 texts of each label for each frame, in no order of labels."""
    rows = [
        (frame.format(*pair), place)
        for frame in frames
        for pairs in zip(*(itertools.permutations(words, 2) for words in WORDS), strict=True)
        for place, pair in enumerate(pairs)
    ]
    texts, gold = zip(*rows, strict=True)
    return Labelled(texts, np.array(gold, np.int64))


def write_rows(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def rows_of(data: Labelled, labels: tuple[str, ...] = LABELS) -> list[tuple[str, str]]:
    return [(text, labels[gold]) for text, gold in zip(data.texts, data.gold, strict=True)]


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
