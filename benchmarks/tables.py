"""The results of a comparison as numbers to show: medians, ratios, Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from exactness import EXACT, Exactness, exactness

MB, GB, GIB = 10**6, 10**9, 2**30
PEER_COLUMNS = (
    "start, s",
    "first answer, s",
    "peak memory, GB",
    "same labels as ours",
)
EXACT_COLUMNS = ("margin error", "same label", "accuracy", "files, MB")
NOT_EXACT = " †"


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

    @property
    def milliseconds(self) -> float:
        """For a text where throughput is measured, otherwise for a call."""
        return 1000 / self.value if self.throughput else self.value


@dataclass(frozen=True)
class Fastest:
    """At one workload, the fastest peer of this project and of the others, among those that are
    equally exact. `ratio` is the time of the other over ours, by what each took in a round over
    the first row in the same round."""

    own: Cell
    other: Cell

    @property
    def ratio(self) -> float:
        return self.other.ratio / self.own.ratio


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
    exact = exactness(results)
    names = list(dict.fromkeys(workload for workload, _ in found))
    heads = [_head(next(found[key] for key in found if key[0] == name)) for name in names]
    heads = [*(EXACT_COLUMNS if exact else ()), *heads]
    lines = [machine_line(results), "", _row(["", *heads]), _row(["---"] + ["---:"] * len(heads))]
    for peer, known in results["peers"].items():
        times = [_value(found.get((name, peer)), ours) for name in names]
        worth = _worth(exact.get(peer), known) if exact else []
        lines.append(_row([marked(peer, exact), *worth, *times]))
    lines += [
        "",
        "In brackets: the peer's time over that of the first row, the median over the rounds.",
        *(_exactness_lines(results, ours) if exact else ()),
        "",
        _row(["", "version", *PEER_COLUMNS]),
        _row(["---", "---"] + ["---:"] * len(PEER_COLUMNS)),
    ]
    lines += [
        _peer(name, known, agreement(results, name, ours))
        for name, known in results["peers"].items()
    ]
    lines += [f"\n{name} did not run: {why}" for name, why in results["failures"].items()]
    lines += [f"\n{line}" for line in _other_ids(exact)]
    return "\n".join(lines) + "\n"


def fastest(results: dict[str, Any], ours: str) -> list[Fastest]:
    """The fastest of those that are equally exact, at each workload where there are some."""
    exact = exactness(results)
    own = {name for name, known in results["peers"].items() if known.get("own")}
    found = []
    every = [cell for cell in cells(results, ours) if cell.peer in exact and exact[cell.peer].equal]
    for workload in dict.fromkeys(cell.workload for cell in every):
        here = sorted((cell for cell in every if cell.workload == workload), key=_ratio)
        best = next((cell for cell in here if cell.peer in own), None)
        other = next((cell for cell in here if cell.peer not in own), None)
        if best and other:
            found.append(Fastest(best, other))
    return found


def _ratio(cell: Cell) -> float:
    return cell.ratio


def marked(peer: str, exact: dict[str, Exactness]) -> str:
    """A peer's name, with a mark where it is not equally exact."""
    return peer + NOT_EXACT if peer in exact and not exact[peer].equal else peer


def margin_error_text(found: Exactness, reference: bool) -> str:
    """A margin error in words."""
    if reference:
        return "reference"
    error = found.margin_error
    if error is None:
        return "–"
    return "< 0.001" if error < 0.001 else f"{error:.3f}"


def _worth(found: Exactness | None, known: dict[str, Any]) -> list[str]:
    """What the columns of `EXACT_COLUMNS` say of a peer."""
    size = f"{known['files_bytes'] / MB:,.0f}" if known.get("files_bytes") else "–"
    if found is None:
        return ["–", "–", "–", size]
    error = margin_error_text(found, bool(known.get("reference")))
    same, right = (f"{count / found.texts:.2%}" for count in (found.same, found.right))
    return [error, same, right, size]


def _exactness_lines(results: dict[str, Any], ours: str) -> Iterator[str]:
    """What the columns mean, and the comparison among those that are equally exact."""
    known = results["labelled"]
    yield (
        f"Margin error, same label and accuracy: on {known['workload']}, against "
        f"{known['reference']}.{NOT_EXACT}: not equally exact, a margin error of more than {EXACT}."
    )
    yield ""
    yield _row(["equally exact, the fastest", "ours", "of the others", "its time over ours"])
    yield _row(["---", "---", "---", "---:"])
    for it in fastest(results, ours):
        shown = [f"{cell.peer}, {_number(cell.value)}" for cell in (it.own, it.other)]
        yield _row([_head(it.own), *shown, f"{it.ratio:.2f}"])


def _other_ids(exact: dict[str, Exactness]) -> Iterator[str]:
    """Of which peers the model reads other ids than the reference's."""
    for name, found in exact.items():
        if found.same_ids < found.texts:
            others = found.texts - found.same_ids
            yield f"{name} reads other ids than the reference on {others} of {found.texts} texts."


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
    value = _number(cell.value)
    return value if cell.peer == ours else f"{value} ({cell.ratio:.2f})"


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


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
