"""A server's throughput beside the library's on the same texts, under an independent load.

    python benchmarks/serving.py build/sentiment sst2/test.jsonl

Needs wrk (https://github.com/wg/wrk; Debian: apt-get install wrk). Every round measures all cases,
one after the other; medians are printed. The library classifies the texts of the file as one list,
with its own defaults.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from a_server import Server, serving
from sentences import read_sentences
from trimexport_runtime import Classifier

LOAD = Path(__file__).with_name("load.lua")
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Load:
    """What wrk found: requests a second, and milliseconds within which half and 99 % of the
    answers came."""

    rate: float
    p50: float
    p99: float


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("texts", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--variant", help="Which variant to run.")
@click.option("--connections", default=64, show_default=True, help="Of clients at saturation.")
@click.option("--together", default=32, show_default=True, help="Texts of a larger request.")
@click.option("--count", default=2000, show_default=True, help="Texts of the file, at most.")
@click.option("--seconds", default=8, show_default=True, help="Of each case.")
@click.option("--rounds", default=5, show_default=True)
def main(
    bundle: Path,
    texts: Path,
    variant: str | None,
    connections: int,
    together: int,
    count: int,
    seconds: int,
    rounds: int,
) -> None:
    """Measure, and print medians with their ratios."""
    sentences = read_sentences(texts)[:count]
    groups = [sentences[at : at + together] for at in range(0, len(sentences), together)]
    options = ("--variant", variant) if variant else ()
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory() as folder:
        single = _bodies(Path(folder) / "single", [[text] for text in sentences])
        grouped = _bodies(Path(folder) / "grouped", groups)
        for _ in range(rounds):
            note("library, texts/s", offline(bundle, variant, sentences, seconds))
            with serving(bundle, *options) as server:
                load(server, single, 4, 1)
                alone = load(server, single, 1, seconds)
                full = load(server, single, connections, seconds)
                many = load(server, grouped, 8, seconds)
                pause = 1000 * connections / (full.rate / 2) - alone.p50
                half = load(server, single, connections, seconds, round(pause))
            note("one request at a time: texts/s", alone.rate)
            note("one request at a time: p50, ms", alone.p50)
            note(f"{connections} clients, a text a request: texts/s", full.rate)
            note(f"8 clients, {together} texts a request: texts/s", many.rate * together)
            note("half of saturation: texts/s", half.rate)
            note("half of saturation: p50, ms", half.p50)
            note("half of saturation: p99, ms", half.p99)
    for name, values in found.items():
        spread = f"{min(values):,.1f} to {max(values):,.1f}"
        click.echo(f"{name:45} {statistics.median(values):10,.1f}  ({spread})")
    _ratio(found, "8 clients, ", "library", "larger requests, of the library's throughput")
    _ratio(found, f"{connections} clients", "library", "single texts, of the library's throughput")
    _ratio(found, f"{connections} clients", "one request at a time: texts", "batching gains")
    _ratio(found, "half of saturation: p99", "one request at a time: p50", "p99 at half, of p50")


def offline(bundle: Path, variant: str | None, sentences: list[str], seconds: float) -> float:
    """Texts a second of the library."""
    classifier = Classifier.load(bundle, variant=variant)
    classifier.classify(sentences[:64])
    began, done = time.perf_counter(), 0
    while (taken := time.perf_counter() - began) < seconds / 2:
        classifier.classify(sentences)
        done += len(sentences)
    return done / taken


def load(server: Server, bodies: Path, connections: int, seconds: int, pause: int = 0) -> Load:
    """What wrk measures."""
    address = f"http://127.0.0.1:{server.port}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "--latency"]
    done = subprocess.run(
        [*command, "-s", str(LOAD), address],
        env={**os.environ, "BODIES": str(bodies), "PAUSE": str(pause)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "Non-2xx" in done or "Socket errors" in done:
        raise RuntimeError(done)
    return Load(
        rate=float(_one(r"Requests/sec:\s+([\d.]+)", done)[0]),
        p50=_milliseconds(_one(r"50%\s+([\d.]+)(\w+)", done)),
        p99=_milliseconds(_one(r"99%\s+([\d.]+)(\w+)", done)),
    )


def _one(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text)
    assert found is not None, text
    return found.groups()


def _milliseconds(found: tuple[str, ...]) -> float:
    return float(found[0]) * _UNITS[found[1]]


def _bodies(path: Path, requests: list[list[str]]) -> Path:
    path.write_text("".join(json.dumps({"texts": texts}) + "\n" for texts in requests))
    return path


def _ratio(found: dict[str, list[float]], above: str, below: str, what: str) -> None:
    """The median over the rounds of one case's share of another."""
    pairs = [
        next(values for name, values in found.items() if name.startswith(start))
        for start in (above, below)
    ]
    ratios = [first / second for first, second in zip(*pairs, strict=True)]
    click.echo(f"{what}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
