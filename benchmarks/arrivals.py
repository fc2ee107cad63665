"""A load of HTTP requests on loopback that costs the machine little.

One thread, open connections, requests made beforehand: at 100 requests a second it takes a
hundredth of a core. wrk, which sends the next request of a connection only when the last one is
answered, cannot send at times that do not depend on the answers.
"""

from __future__ import annotations

import json
import random
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

TIMEOUT = 60.0  # seconds after which a measurement in which nothing is answered has failed
KEPT = 2.0  # seconds that a connection may have been idle; uvicorn closes it after five


@dataclass(eq=False)
class _Connection:
    """An open connection; `began` is when its request was due, `ended` when that was answered."""

    socket: socket.socket
    began: float = 0.0
    ended: float = 0.0
    received: bytearray = field(default_factory=bytearray)

    def ask(self, request: bytes, began: float) -> None:
        self.began = began
        self.received.clear()
        self.socket.sendall(request)

    def is_answered(self) -> bool:
        """Read what came; whether that is the whole answer."""
        part = self.socket.recv(65536)
        if not part:
            raise RuntimeError("the server closed a connection in place of an answer")
        self.received += part
        head, blank, body = bytes(self.received).partition(b"\r\n\r\n")
        if not blank:
            return False
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"a request was refused: {bytes(self.received)!r}")
        (line,) = (it for it in head.lower().split(b"\r\n") if it.startswith(b"content-length:"))
        return len(body) == int(line.removeprefix(b"content-length:"))


class Arrivals:
    """Requests to the server on a port, one text each, the texts in turn."""

    def __init__(self, port: int, texts: Sequence[str]) -> None:
        self._port = port
        self._requests = [_request(text) for text in texts]
        self._sent = 0
        self._idle: list[_Connection] = []
        self._busy = selectors.SelectSelector()  # of the kinds that wait less than a millisecond

    def one_by_one(self, count: int) -> list[float]:
        """The seconds that each of `count` requests took, each sent when the last was answered."""
        taken = []
        for _ in range(count):
            self._send(time.perf_counter())
            while not (found := list(self._answered(TIMEOUT))):
                pass
            taken += found
        return taken

    def at_random(self, rate: float, count: int, seed: int) -> list[float]:
        """The seconds that each of `count` requests took, counted from when it was due: at random
        times (a Poisson process), `rate` a second, whatever was answered until then."""
        times = random.Random(seed)
        due = time.perf_counter()
        taken: list[float] = []
        for _ in range(count):
            due += times.expovariate(rate)
            while (left := due - time.perf_counter()) > 0:
                taken += self._answered(left)
            self._send(due)
        while len(taken) < count:
            taken += self._answered(TIMEOUT)
        return taken

    def saturated(self, connections: int, seconds: float) -> float:
        """Answers a second to so many clients, each of which sends its next request at once."""
        for _ in range(connections):
            self._send(time.perf_counter())
        for _ in range(connections):  # until the batches are as large as they stay
            self._answer_and_send()
        began, done = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < seconds:
            done += self._answer_and_send()
        rate = done / passed
        left = connections
        while left:
            left -= len(list(self._answered(TIMEOUT)))
        return rate

    def _answer_and_send(self) -> int:
        found = list(self._answered(TIMEOUT))
        for _ in found:
            self._send(time.perf_counter())
        return len(found)

    def _send(self, due: float) -> None:
        connection = self._connection()
        connection.ask(self._requests[self._sent % len(self._requests)], due)
        self._sent += 1
        self._busy.register(connection.socket, selectors.EVENT_READ, connection)

    def _connection(self) -> _Connection:
        """An open connection that the server does not close just now for having been idle."""
        while self._idle:
            connection = self._idle.pop()
            if time.perf_counter() - connection.ended < KEPT:
                return connection
            connection.socket.close()
        made = socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Connection(made)

    def _answered(self, most: float) -> Iterator[float]:
        """Wait up to `most` seconds for answers; the seconds that each one's request took."""
        ready = self._busy.select(most)
        if not ready and most == TIMEOUT:
            raise RuntimeError(f"nothing was answered for {TIMEOUT:.0f} s")
        for key, _ in ready:
            connection: _Connection = key.data
            if connection.is_answered():
                self._busy.unregister(connection.socket)
                self._idle.append(connection)
                connection.ended = time.perf_counter()
                yield connection.ended - connection.began

    def close(self) -> None:
        """Close the connections, none of which waits for an answer."""
        for connection in self._idle:
            connection.socket.close()


def _request(text: str) -> bytes:
    body = json.dumps({"texts": [text]}).encode()
    return b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
