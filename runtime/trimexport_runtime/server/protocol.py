"""uvicorn's HTTP protocol, with limits of time and with notice of clients that disconnect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

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

    class TimedProtocol(HttpToolsProtocol):
        _waiting: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.more_body and not self.pipeline:
                self.flow.resume_reading()  # so that a client that disconnects is noticed
            self._watch()

        def _watch(self) -> None:
            """Run the clock until a request's headers are here; stop it while it is answered."""
            if self.cycle is not None and not self.cycle.response_complete:
                _stop(self._waiting)
                self._waiting = None
            elif self._waiting is None:
                self._waiting = self.loop.call_later(seconds, self.transport.close)

        def pause_writing(self) -> None:
            """Start the clock of a client that does not read its answer."""
            super().pause_writing()
            self._stuck = self.loop.call_later(seconds, self.transport.abort)

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
            note_bad()
            body = json.dumps({"error": msg, "error_type": "bad_http"}, allow_nan=False).encode()
            head = (
                b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
                b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            )
            self.transport.write(head + body)
            self.transport.close()

    return TimedProtocol


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
