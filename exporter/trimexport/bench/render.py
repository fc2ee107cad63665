"""A measurement as tables for a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .machine import Machine
from .rounds import BenchReport, Measured

# Each figure of a turn, its heading in a table, the factor to the unit there, and the decimals.
_FIGURES = (
    ("latency_p50_s", "p50 ms", 1e3, 2),
    ("latency_p90_s", "p90 ms", 1e3, 2),
    ("latency_p99_s", "p99 ms", 1e3, 2),
    ("texts_per_s", "texts/s", 1, 1),
    ("startup_s", "start s", 1, 2),
    ("resident_bytes", "resident MB", 1e-6, 0),
    ("peak_bytes", "peak MB", 1e-6, 0),
)
_UNKNOWN = "?"


def table(report: BenchReport, machine: Machine) -> str:
    """The report as text for a terminal."""
    first, *others = report.measured
    texts = len(report.sample.texts)
    threads = "each engine's own choice of threads"
    if report.threads is not None:
        threads = f"threads: {report.threads}"
    lines = [
        *_machine_lines(machine),
        ", ".join(f"{name} {version}" for name, version in _versions(report).items()),
        f"{texts} texts, {report.apart} of them one at a time; {threads}; "
        f"medians of {report.rounds} rounds",
        "",
        *_aligned([_head(report), *(_row(report, measured) for measured in report.measured)]),
    ]
    if others:
        lines += [
            "",
            f"against {first.subject.name}, round by round (more texts/s are better, less of all "
            "else)",
            *_aligned([_ratio_head(), *(_ratio_row(measured, first) for measured in others)]),
        ]
    return "\n".join([*lines, *(f"left out: {reason}" for reason in report.left_out.values())])


def as_dict(report: BenchReport, machine: Machine) -> dict[str, Any]:
    """The report for a program, in seconds and bytes."""
    return {
        "machine": asdict(machine),
        "versions": _versions(report),
        "texts": len(report.sample.texts),
        "texts_one_at_a_time": report.apart,
        "threads": report.threads,
        "rounds": report.rounds,
        "subjects": [_subject_dict(report, measured) for measured in report.measured],
        "left_out": [{"name": name, "reason": why} for name, why in report.left_out.items()],
    }


def _subject_dict(report: BenchReport, measured: Measured) -> dict[str, Any]:
    first, subject = report.measured[0], measured.subject
    gold = report.sample.gold
    return {
        "name": subject.name,
        **subject.request(),
        "file_bytes": subject.bytes,
        "agreement": measured.agreement(first.labels),
        "accuracy": None if gold is None else measured.agreement(gold),
        "labels": list(measured.labels),
        "figures": {
            name: {
                "median": measured.figure(name),
                "ratio": measured.ratio(name, first),
                "rounds": [turn.figures[name] for turn in measured.turns],
            }
            for name, *_ in _FIGURES
        },
    }


def _versions(report: BenchReport) -> dict[str, str]:
    """The versions of the packages that the subjects ran with."""
    return {
        name: version
        for measured in report.measured
        for name, version in measured.turns[0].versions.items()
    }


def _machine_lines(machine: Machine) -> list[str]:
    instructions = "instruction sets unknown"
    if machine.instructions is not None:
        instructions = " ".join(machine.instructions) or "no instruction sets that matter here"
    memory = _shown(machine.memory_bytes, 1 / (1 << 30), 1)
    return [
        f"{machine.processor}, cores: {machine.cores}, memory: {memory} GiB ({instructions})",
        f"{machine.system}, Python {machine.python}",
    ]


def _head(report: BenchReport) -> tuple[str, ...]:
    accuracy = () if report.sample.gold is None else ("accuracy",)
    return ("", *(heading for _, heading, _, _ in _FIGURES), "files MB", "same labels", *accuracy)


def _row(report: BenchReport, measured: Measured) -> tuple[str, ...]:
    gold = report.sample.gold
    return (
        measured.subject.name,
        *(_shown(measured.figure(name), unit, places) for name, _, unit, places in _FIGURES),
        f"{measured.subject.bytes / 1e6:,.1f}",
        f"{measured.agreement(report.measured[0].labels):.2%}",
        *(() if gold is None else (f"{measured.agreement(gold):.2%}",)),
    )


def _ratio_head() -> tuple[str, ...]:
    """The header of the table of ratios: the figures' headings without units."""
    return ("", *(heading.split()[0] for _, heading, _, _ in _FIGURES), "files")


def _ratio_row(measured: Measured, first: Measured) -> tuple[str, ...]:
    ratios = [measured.ratio(name, first) for name, *_ in _FIGURES]
    ratios.append(measured.subject.bytes / first.subject.bytes)
    return (
        measured.subject.name,
        *(_UNKNOWN if ratio is None else f"{ratio:,.2f}x" for ratio in ratios),
    )


def _shown(value: float | None, unit: float, places: int) -> str:
    return _UNKNOWN if value is None else f"{value * unit:,.{places}f}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows as lines, their first cells aligned to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
