"""The scoring of parts, which every engine does in each of its processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimexport_runtime.backends import DEFAULT
from trimexport_runtime.classifier import Classifier

from .folder import keep
from .formats import format_of
from .parts import Part, Tally, score, tally


@dataclass(frozen=True)
class ScorerOptions:
    """How parts are scored and where their rows are kept; the rest as in `Classifier.load`.

    Args:
        output: the job's output, whose extension says the format of the rows.
        folder: where parts are kept until all are done.
    """

    bundle: Path
    output: Path
    folder: Path
    task: Path | None = None
    variant: str | None = None
    backend: str = DEFAULT
    threads: int | None = None


@dataclass(frozen=True)
class DonePart:
    """The name of a part that is done, and its tally."""

    name: str
    tally: Tally


class Scorer:
    """Classifies the records of parts. Making one loads the model."""

    def __init__(self, options: ScorerOptions) -> None:
        self._folder = options.folder
        self._format = format_of(options.output)
        self._classifier = Classifier.load(
            options.bundle,
            variant=options.variant,
            backend=options.backend,
            threads=options.threads,
            task=options.task,
        )

    def score(self, part: Part) -> DonePart:
        """Classify a part's records and keep its rows and its tally in the folder."""
        rows = score(self._classifier, part)
        counts = tally(rows)
        keep(self._folder, part.name, self._format.encode(rows, self._classifier.manifest), counts)
        return DonePart(part.name, counts)
