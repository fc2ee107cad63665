"""uvicorn's HTTP protocol, with limits of time and size and with notice of clients that disconnect.

Of what uvicorn does not document this uses, of a connection: `parser`, `headers`, `url`, `cycle`,
`pipeline`, `flow`, `loop`, `transport` and `_unset_keepalive_if_required`; of its cycle: `scope`,
`more_body` and `response_complete`. `lifecycle` uses of a server: `startup`, `main_loop`,
`shutdown`, `servers`, `server_state.tasks` and `lifespan`. Hence the upper bound on uvicorn's
version in pyproject.toml; a new version is let in once the tests of the server pass with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD = 65_536  # bytes that are no body (a line, headers, trailers) and may come in a row

ANSWER = "trimexport.answer"
GONE = "trimexport.gone"
"""Keys of a request's scope: the future of its answer, which is cancelled if the client
disconnects, and whether the client has disconnected."""


def protocol(seconds: float, note_bad: Callable[[], None]) -> type[HttpToolsProtocol]:
    """The class of a server's connections.

    Args:
        seconds: how long a request's headers may take to come, and an answer to be read.
        note_bad: called for each request that is not HTTP.
    """
    limits = {"seconds": seconds, "note_bad": staticmethod(note_bad)}
    return type("TimedProtocol", (_TimedProtocol,), limits)


class _TimedProtocol(HttpToolsProtocol):
    """A server's connection; `protocol` makes a class of it for each server."""

    seconds: float
    note_bad: Callable[[], None]
    _waiting: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None
    _head = 0  # bytes since the last that were body, or since the headers ended

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._head += len(data)
        self._feed(data)
        if self.transport.is_closing():
            return
        if self._head > MOST_HEAD:
            self.send_400_response(f"the headers have more than {MOST_HEAD} bytes")
            return
        if self.cycle is not None and not self.cycle.more_body and not self.pipeline:
            self.flow.resume_reading()  # so that a client that disconnects is noticed
        self._watch()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("this is no HTTP request")

    def _decline(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 with a request that offers another protocol. The parser takes what
        is behind its headers for that protocol, so another parser gets it without the offer."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":  # an offer by itself
            self.send_400_response("CONNECT is for proxies, and this is none")
            return
        kept = [line for line in self.headers if line[0] != b"upgrade"]
        head = [b"%s %s HTTP/%s" % (method, self.url, version), *map(b": ".join, kept)]
        self.parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join([*head, b"", rest]))

    def on_headers_complete(self) -> None:
        """Begin the answer, unless `_decline` has the request parsed once more."""
        if not self.parser.should_upgrade():
            self._head = 0
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._head = 0
            super().on_message_complete()

    def _watch(self) -> None:
        """Run the clock until a request's headers are here; stop it while it is answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            _stop(self._waiting)
            self._waiting = None
        elif self._waiting is None:
            self._waiting = self.loop.call_later(self.seconds, self.transport.close)

    def pause_writing(self) -> None:
        """Start the clock of a client that does not read its answer."""
        super().pause_writing()
        self._stuck = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the clock of a client that reads again."""
        super().resume_writing()
        _stop(self._stuck)
        self._stuck = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the answer to a client that has disconnected."""
        _stop(self._waiting)
        _stop(self._stuck)
        scope: Any = {} if self.cycle is None else self.cycle.scope
        scope[GONE] = True
        if (answer := scope.get(ANSWER)) is not None:
            answer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not HTTP, in JSON, and close the connection."""
        self.note_bad()
        logging.getLogger(__name__).warning("refused: %s", msg)
        body = json.dumps({"error": msg, "error_type": "bad_http"}, allow_nan=False).encode()
        head = (
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        self.transport.write(head + body)
        self.transport.close()


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
