"""The rounds of a measurement: in each, every subject in turn does the same work, alone.

A subject's process starts for its turn and ends with it, so that no two subjects share memory or
processor, and every turn has a start-up to measure. The order rotates from round to round, and
subjects are compared within a round, so that a busy machine disturbs all alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from trimexport.errors import BenchError
from trimexport.progress import Progress
from trimexport.texts import Texts, check_sample, inputs_for
from trimexport_runtime.inputs import Input

from .process import CannotRun, worker
from .subjects import Subject, Subjects

APART = 64  # the most texts that are timed one at a time
Figures = Mapping[str, float | None]
T = TypeVar("T")


@dataclass(frozen=True)
class Turn:
    """The results of a subject's turn in a round.

    The figures are `startup_s`, `latency_p50_s`, `latency_p90_s`, `latency_p99_s`, `texts_per_s`,
    `resident_bytes` and `peak_bytes`; one that the system does not tell is None. `labels` are the
    answers, and `versions` those of the packages that gave them.
    """

    figures: Figures
    labels: tuple[str, ...]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Measured:
    """A subject and its turns, one in each round."""

    subject: Subject
    turns: tuple[Turn, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The subject's label for each text."""
        return self.turns[-1].labels

    def figure(self, name: str) -> float | None:
        """The median of a figure over the rounds."""
        return _median([turn.figures[name] for turn in self.turns])

    def ratio(self, name: str, first: Measured) -> float | None:
        """A figure divided by the first subject's: the median of each round's ratio."""
        pairs = zip(self.turns, first.turns, strict=True)
        return _median([_ratio(own.figures[name], unit.figures[name]) for own, unit in pairs])

    def agreement(self, labels: Sequence[str]) -> float:
        """The share of texts for which the subject's label is the one in `labels`."""
        return statistics.mean(a == b for a, b in zip(self.labels, labels, strict=True))


@dataclass(frozen=True)
class BenchReport:
    """Everything that was measured. The first subject is the one that the others are compared
    with. `left_out` gives the reason for each subject that could not run, by name; `apart` is the
    number of texts that were timed one at a time."""

    measured: tuple[Measured, ...]
    left_out: Mapping[str, str]
    sample: Texts
    apart: int
    threads: int | None
    rounds: int


def bench(
    given: Subjects, sample: Texts, *, threads: int | None, rounds: int, progress: Progress
) -> BenchReport:
    """Measure the subjects on the texts of `sample`.

    Args:
        threads: how many threads a subject may use; None leaves it to the subject's engine.

    Raises:
        SpecError: right answers that are not labels of the bundle.
        BenchError: a subject that is not optional cannot be measured, or no variant can run.
    """
    check_sample(sample, given.labels)
    sample = inputs_for(sample, given.fields)
    apart = sample.texts[:: -(-len(sample.texts) // APART)]
    turns: dict[int, list[Turn]] = {place: [] for place in range(len(given.subjects))}
    left_out: dict[str, str] = {}
    for number in range(rounds):
        with progress.bar(f"round {number + 1} of {rounds}", len(turns)) as tick:
            for place in rotated(list(turns), number):
                subject = given.subjects[place]
                try:
                    turns[place].append(_take_turn(subject, sample.texts, apart, threads))
                except CannotRun as error:
                    if not subject.optional:
                        raise
                    left_out[subject.name] = str(error)
                    del turns[place]
                tick(1)
        if left_out and not any(given.subjects[place].optional for place in turns):
            raise BenchError(f"no variant can run here; {'; '.join(left_out.values())}")
    measured = [Measured(given.subjects[place], tuple(own)) for place, own in turns.items()]
    return BenchReport(tuple(measured), left_out, sample, len(apart), threads, rounds)


def rotated(subjects: Sequence[T], turn: int) -> list[T]:
    """The subjects in the order of round `turn`, counted from 0."""
    start = turn % len(subjects)
    return [*subjects[start:], *subjects[:start]]


def _take_turn(
    subject: Subject, texts: Sequence[Input], apart: Sequence[Input], threads: int | None
) -> Turn:
    """Start a subject, measure it on `texts` together and on `apart` one at a time, end it."""
    began = time.perf_counter()
    with worker(subject) as ask:
        loaded = ask("load", **subject.request(), threads=threads)
        ask("answer", texts=texts[:1])
        startup = time.perf_counter() - began
        resident = ask("memory")["resident"]
        latencies = ask("apart", texts=apart)["seconds"]
        together = ask("together", texts=texts)
        peak = ask("memory")["peak"]
    p50, p90, p99 = np.percentile(latencies, (50, 90, 99)).tolist()
    return Turn(
        figures={
            "latency_p50_s": p50,
            "latency_p90_s": p90,
            "latency_p99_s": p99,
            "texts_per_s": len(texts) / statistics.median(together["seconds"]),
            "startup_s": startup,
            "resident_bytes": resident,
            "peak_bytes": peak,
        },
        labels=tuple(together["labels"]),
        versions=loaded["versions"],
    )


def _median(values: Sequence[float | None]) -> float | None:
    """The median of the known values, or None if there are none."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _ratio(value: float | None, unit: float | None) -> float | None:
    """The value divided by the unit, or None if one of them is not known."""
    return None if value is None or unit is None else value / unit
