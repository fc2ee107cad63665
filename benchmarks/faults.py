"""A server under a mixed load: valid requests and wrong ones, texts of 1 character to 1 MB, clients
that hang up.

    python benchmarks/faults.py build/sentiment sst2/test.jsonl

First the mixed load: every answer is compared with the library's, bit for bit, and memory is
watched. Then the same again, with SIGTERM in the middle: the answers that the server's log has
must be those that clients got. Exits with status 1 if anything is not as it should be.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from a_server import Server, serving
from sentences import read_sentences
from trimexport_runtime import Classifier

LARGEST = 1_000_000  # characters
BODY = 4 * 2**20  # bytes that the server takes
ANSWERED = "/classify"  # where those ask who wait for their answers
FLAT = 1.05  # of the memory after the first minute, at most, in the last


@dataclass(frozen=True)
class Ask:
    """A request, the statuses that are right for it, and the texts whose answers are known."""

    path: str
    body: bytes
    statuses: frozenset[int]
    texts: tuple[str, ...] = ()
    sent: float = 1.0  # the share of the body after which the client hangs up


@dataclass
class Seen:
    """What clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    hung_up: int = 0
    unanswered: int = 0
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return self.statuses.total() + self.hung_up + self.unanswered


class Mixture:
    """Requests of every kind, drawn at random."""

    def __init__(self, bundle: Path, variant: str | None, texts: list[str], seed: int) -> None:
        self._draw = random.Random(seed)
        self._texts = texts
        longest = [" ".join(self._draw.choices(texts, k=it)) for it in (30, 300, 3000, 12_000)]
        self._long = [text[: round(math.exp(at))] for text in longest for at in range(1, 14)]
        known = [*texts, *self._long]
        answers = Classifier.load(bundle, variant=variant).classify(known)
        self.expected = {
            text: list(it.probabilities) for text, it in zip(known, answers, strict=True)
        }

    def __call__(self) -> Ask:
        draw = self._draw
        kinds: list[tuple[float, Callable[[], Ask]]] = [
            (60, lambda: self._valid(draw.choices(self._texts, k=1))),
            (12, lambda: self._valid(draw.choices(self._texts, k=draw.randint(2, 40)))),
            (3, lambda: self._valid(draw.choices(self._long, k=1), truncate=True)),
            (3, lambda: self._hangs_up(draw.random())),
            (3, lambda: self._hangs_up(1.0)),
            (4, lambda: Ask(ANSWERED, b'{"texts": [', frozenset((400,)))),
            (4, lambda: Ask(ANSWERED, b'{"texts": "no list"}', frozenset((422,)))),
            (4, lambda: Ask("/predict", b'{"inputs": ["a", "pair"]}', frozenset((422,)))),
            (4, lambda: Ask("/nowhere", b"{}", frozenset((404,)))),
            (2, lambda: _asking(["x" * LARGEST], frozenset((413,)))),
            (1, lambda: Ask(ANSWERED, b" " * (BODY + 1), frozenset((413,)))),
        ]
        makers = [maker for _, maker in kinds]
        return draw.choices(makers, [weight for weight, _ in kinds])[0]()

    def _valid(self, texts: list[str], *, truncate: bool = False) -> Ask:
        return _asking(texts, frozenset((200,)), truncate=truncate)

    def _hangs_up(self, share: float) -> Ask:
        texts = self._draw.choices(self._texts, k=30)
        body = json.dumps({"inputs": [[text] for text in texts]}).encode()
        return Ask("/predict", body, frozenset(), sent=share)


def _asking(texts: list[str], statuses: frozenset[int], *, truncate: bool = False) -> Ask:
    body = json.dumps({"texts": texts, "truncate": truncate}).encode()
    return Ask(ANSWERED, body, statuses, tuple(texts))


class Client:
    """One connection, made again whenever it ended."""

    def __init__(self, port: int, mixture: Mixture, seen: Seen) -> None:
        self._port, self._mixture, self._seen = port, mixture, seen
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, going: Callable[[], bool]) -> None:
        """Ask, until there is no more to do or nobody to ask."""
        while going():
            ask = self._mixture()
            try:
                await self._once(ask)
            except (OSError, asyncio.IncompleteReadError):
                self._hang_up()
                if ask.sent == 1.0 and ask.statuses:
                    self._seen.unanswered += 1
        self._hang_up()

    async def _once(self, ask: Ask) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        head = f"POST {ask.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(ask.body)}\r\n\r\n"
        part = ask.body if ask.sent == 1.0 else ask.body[: int(ask.sent * len(ask.body))]
        writer.write(head.encode() + part)
        if not ask.statuses:
            await writer.drain()
            self._hang_up()
            self._seen.hung_up += 1
            return
        status, headers, body = await _answer(reader)
        if headers.get("connection") == "close":
            self._hang_up()
        self._note(ask, status, json.loads(body))

    def _note(self, ask: Ask, status: int, answer: Any) -> None:
        seen = self._seen
        seen.statuses[status] += 1
        if status not in ask.statuses | {429, 503}:
            seen.wrong.append(f"{ask.path}: {status}, {answer}")
        elif status == 200:
            found = [list(it["probabilities"].values()) for it in answer["predictions"]]
            if found != [self._mixture.expected[text] for text in ask.texts]:
                seen.wrong.append(f"another answer to {ask.texts[0][:50]!r}")

    def _hang_up(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {}
    for line in head[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, body


async def _load(
    server: Server, mixture: Mixture, clients: int, requests: int, seconds: float, stop: int | None
) -> Seen:
    """So many clients until so many requests and seconds have passed, or the server has ended."""
    seen, began, stopped = Seen(), time.monotonic(), False

    def going() -> bool:
        if server.process.poll() is not None or stopped:
            return False
        return seen.requests < requests or time.monotonic() - began < seconds

    running = [
        asyncio.ensure_future(Client(server.port, mixture, seen).run(going)) for _ in range(clients)
    ]
    while not all(task.done() for task in running):
        if server.process.poll() is None:
            seen.memory.append((time.monotonic() - began, server.memory()))
        if stop is not None and not stopped and seen.requests >= stop:
            server.process.terminate()
            stopped = True
        await asyncio.wait(running, timeout=0.5 if stop is None else 0.05)
    await asyncio.gather(*running)
    return seen


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("texts", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--variant", help="Which variant to run.")
@click.option("--requests", default=20_000, show_default=True)
@click.option("--seconds", default=240, show_default=True, help="At least, of the mixed load.")
@click.option("--clients", default=200, show_default=True, help="Connections at once.")
@click.option("--seed", default=0, show_default=True)
def main(
    bundle: Path,
    texts: Path,
    variant: str | None,
    requests: int,
    seconds: float,
    clients: int,
    seed: int,
) -> None:
    """Load a server, then load another and end it."""
    mixture = Mixture(bundle, variant, read_sentences(texts), seed)
    options = ("--variant", variant) if variant else ()
    with serving(bundle, *options) as server:
        seen = asyncio.run(_load(server, mixture, clients, requests, seconds, None))
        status, lines = server.stop()
    good = _report("mixed load", seen, status, lines)
    good &= _report_memory(seen)
    with serving(bundle, *options) as server:
        seen = asyncio.run(_load(server, mixture, clients, requests, 0, requests // 10))
        status, lines = server.ended()
    good &= _report("SIGTERM in the middle", seen, status, lines)
    sys.exit(0 if good else 1)


def _report(what: str, seen: Seen, status: int, lines: list[dict[str, Any]]) -> bool:
    """Print what was seen; whether it is as it should be."""
    logged = sum(it.get("status") == 200 and it["path"] == ANSWERED for it in lines)
    click.echo(
        f"{what}: {seen.requests:,} requests, answered {dict(sorted(seen.statuses.items()))}, "
        f"{seen.hung_up:,} clients hung up, {seen.unanswered:,} found nobody to answer; "
        f"wrong: {len(seen.wrong)}; 200 in the log: {logged:,}; exit status {status}"
    )
    for line in seen.wrong[:5]:
        click.echo(f"  {line[:300]}")
    return status == 0 and not seen.wrong and logged == seen.statuses[200] > 0


def _report_memory(seen: Seen) -> bool:
    after = [size for at, size in seen.memory if at >= 60]
    if not after:
        click.echo("memory: less than a minute, so nothing is said of it")
        return True
    tenth = max(1, len(after) // 10)
    first, last = max(after[:tenth]), max(after[-tenth:])
    click.echo(
        f"memory: {seen.memory[0][1] / 1e6:,.0f} MB at the start, {first / 1e6:,.0f} MB after a "
        f"minute, {last / 1e6:,.0f} MB after {seen.memory[-1][0]:,.0f} s"
    )
    return last <= FLAT * first


if __name__ == "__main__":
    main()
