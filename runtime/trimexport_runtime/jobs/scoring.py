"""Score parts and keep them: what every engine does, wherever its processes are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimexport_runtime.backends import DEFAULT
from trimexport_runtime.classifier import Classifier

from .folder import keep
from .formats import format_of
from .parts import Part, Tally, score, tally


@dataclass(frozen=True)
class Scoring:
    """How parts are scored, and for which output; the rest as in `Classifier.load`."""

    bundle: Path
    output: Path
    folder: Path
    variant: str | None = None
    backend: str = DEFAULT
    threads: int | None = None


@dataclass(frozen=True)
class Done:
    """A part that is done, by its name."""

    name: str
    tally: Tally


class Scorer:
    """A process's model. Making one loads it."""

    def __init__(self, scoring: Scoring) -> None:
        self._folder = scoring.folder
        self._format = format_of(scoring.output)
        self._classifier = Classifier.load(
            scoring.bundle,
            variant=scoring.variant,
            backend=scoring.backend,
            threads=scoring.threads,
        )

    def score(self, part: Part) -> Done:
        """Score a part and make it done."""
        rows = score(self._classifier, part)
        found = tally(rows)
        keep(self._folder, part.name, self._format.encode(rows, self._classifier.labels), found)
        return Done(part.name, found)
