"""The results of a comparison as numbers to show: medians, ratios, a Markdown table."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

GB, GIB = 10**9, 2**30
PEER_COLUMNS = (
    "start, s",
    "first answer, s",
    "peak memory, GB",
    "same labels as ours",
)


@dataclass(frozen=True)
class Cell:
    """One peer at one workload.

    `value` is in ms for a call, or in texts a second where `throughput` is measured. `ratio` is
    the median over the rounds of the peer's time over ours in the same round.
    """

    workload: str
    peer: str
    value: float
    ratio: float
    throughput: bool


def cells(results: dict[str, Any], ours: str) -> list[Cell]:
    """Every measurement. Ours is measured once with each group and is given over all of them."""
    found = []
    for workload in dict.fromkeys(run["workload"] for run in results["runs"]):
        runs = [run for run in results["runs"] if run["workload"] == workload]
        peers = dict.fromkeys(name for run in runs for name in run["seconds"])
        found += [
            _cell([run for run in runs if peer in run["seconds"]], peer, ours) for peer in peers
        ]
    return found


def _cell(runs: list[dict[str, Any]], peer: str, ours: str) -> Cell:
    seconds = [value for run in runs for value in run["seconds"][peer]]
    base = [value for run in runs for value in run["seconds"].get(ours, ())]
    pairs = list(zip(seconds, base, strict=False))
    run = runs[0]
    middle = median(seconds)
    return Cell(
        workload=run["workload"],
        peer=peer,
        value=run["texts"] / middle if run["throughput"] else 1000 * middle / run["calls"],
        ratio=median(one / other for one, other in pairs) if pairs else float("nan"),
        throughput=run["throughput"],
    )


def agreement(results: dict[str, Any], peer: str, ours: str) -> tuple[int, int]:
    """How many texts got the same label from a peer and from ours, and how many both were given."""
    same = texts = 0
    for run in results["runs"]:
        if {peer, ours} <= set(run["logits"]):
            pairs = list(zip(run["logits"][peer], run["logits"][ours], strict=True))
            same += sum(_best(one) == _best(other) for one, other in pairs)
            texts += len(pairs)
    return same, texts


def _best(row: list[float]) -> int:
    return max(range(len(row)), key=row.__getitem__)


def markdown(results: dict[str, Any], ours: str) -> str:
    """The tables: times and ratios of each workload, and the peers themselves."""
    found = {(cell.workload, cell.peer): cell for cell in cells(results, ours)}
    names = list(dict.fromkeys(workload for workload, _ in found))
    heads = [_head(next(found[key] for key in found if key[0] == name)) for name in names]
    lines = [machine_line(results), "", _row(["", *heads]), _row(["---"] + ["---:"] * len(names))]
    lines += [
        _row([peer, *(_value(found.get((name, peer)), ours) for name in names)])
        for peer in results["peers"]
    ]
    lines += [
        "",
        "In brackets: the peer's time over that of the first row, the median over the rounds.",
        "",
        _row(["", "version", *PEER_COLUMNS]),
        _row(["---", "---"] + ["---:"] * len(PEER_COLUMNS)),
    ]
    lines += [
        _peer(name, known, agreement(results, name, ours))
        for name, known in results["peers"].items()
    ]
    lines += [f"\n{name} did not run: {why}" for name, why in results["failures"].items()]
    return "\n".join(lines) + "\n"


def machine_line(results: dict[str, Any]) -> str:
    """The machine in words."""
    machine = results["machine"]
    return (
        f"{machine['processor']}, {machine['cores']} cores "
        f"({', '.join(machine['instructions'] or ['instruction sets unknown'])}), "
        f"{(machine['memory_bytes'] or 0) / GIB:.1f} GiB; {results['threads']} threads"
        + (f"; {machine['gpu']}." if "gpu" in machine else ".")
    )


def _head(cell: Cell) -> str:
    return f"{cell.workload}, {'texts/s' if cell.throughput else 'ms'}"


def _value(cell: Cell | None, ours: str) -> str:
    if cell is None:
        return "–"
    value = f"{cell.value:.1f}" if cell.value < 100 else f"{cell.value:,.0f}"
    return value if cell.peer == ours else f"{value} ({cell.ratio:.2f})"


def _peer(name: str, known: dict[str, Any], agreed: tuple[int, int]) -> str:
    return _row(
        [
            name,
            known["version"],
            f"{known['start_seconds']:.1f}",
            f"{known['first_answer_seconds']:.2f}",
            f"{known['peak_rss_bytes'] / GB:.2f}"
            + (f" + {known['gpu_bytes'] / GB:.2f} on the GPU" if known.get("gpu_bytes") else ""),
            f"{agreed[0]} of {agreed[1]}",
        ]
    )


def _row(values: list[str]) -> str:
    return "| " + " | ".join(values) + " |"
