"""How long requests that come at random wait for servers with different options.

    python benchmarks/tail.py build/sentiment sst2/test.jsonl --serve "" --serve "--workers 2"

All servers run from the beginning to the end and are asked in turn, one at a time, for `--rounds`
rounds: first one request after the other, then at random times (a Poisson process) at half of what
the first of them answers at saturation, all with the same times and the same texts. The load shares
the cores with the servers; it takes about a hundredth of one at 100 requests a second.
"""

from __future__ import annotations

import contextlib
import random
import shlex
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import click

from a_server import serving
from arrivals import Arrivals
from sentences import read_sentences

ALONE = 15  # requests one after the other in a round


@dataclass
class Case:
    """A server's options, the load on it, and the seconds that its requests took."""

    options: str
    load: Arrivals
    rate: float = 0.0
    alone: list[float] = field(default_factory=list)
    at_random: list[float] = field(default_factory=list)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("texts", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--serve", "options", multiple=True, default=("",), help="Options of a server.")
@click.option("--rate", type=float, help="Requests a second.  [default: half of saturation]")
@click.option("--clients", default=32, show_default=True, help="At saturation.")
@click.option("--seconds", default=10.0, show_default=True, help="Of saturation.")
@click.option("--requests", default=600, show_default=True, help="Of each server, at random.")
@click.option("--rounds", default=10, show_default=True)
def main(
    bundle: Path,
    texts: Path,
    options: tuple[str, ...],
    rate: float | None,
    clients: int,
    seconds: float,
    requests: int,
    rounds: int,
) -> None:
    """Measure, and print a line for each server."""
    sentences = read_sentences(texts)
    random.Random(0).shuffle(sentences)
    with contextlib.ExitStack() as stack:
        cases = []
        for it in options:
            server = stack.enter_context(serving(bundle, *shlex.split(it)))
            load = stack.enter_context(contextlib.closing(Arrivals(server.port, sentences)))
            cases.append(Case(it, load))
        for case in cases:
            case.load.one_by_one(5)
            case.rate = case.load.saturated(clients, seconds)
        asked = rate or cases[0].rate / 2
        for number in range(rounds):
            for case in cases:
                case.alone += case.load.one_by_one(ALONE)
                case.at_random += case.load.at_random(asked, requests // rounds, number)
    click.echo(f"{asked:.1f} requests a second; milliseconds")
    for case in cases:
        click.echo(_line(case))


def _line(case: Case) -> str:
    alone = 1000 * statistics.median(case.alone)
    found = sorted(case.at_random)
    half, nine, last = (1000 * found[int(share * len(found))] for share in (0.5, 0.9, 0.99))
    return (
        f"{case.options or 'as it is':30} alone {alone:6.1f}, p50 {half:6.1f}, p90 {nine:6.1f}, "
        f"p99 {last:6.1f} ({last / alone:.1f} times alone) of {len(found)}; "
        f"saturated {case.rate:.1f} a second"
    )


if __name__ == "__main__":
    main()
