"""Run the application: sockets, slow clients, SIGTERM."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from trimexport_runtime.classifier import Classifier
from trimexport_runtime.errors import BackendError

from .app import App
from .service import Service
from .settings import Settings


def serve(classifiers: Mapping[str, Classifier], settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT: then take no more, answer what was accepted, and return.

    Raises:
        BackendError: the address cannot be taken.
    """
    service = Service(classifiers, settings)
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(_serve(service, settings, host, port))
    finally:
        service.close()


async def _serve(service: Service, settings: Settings, host: str, port: int) -> None:
    config = uvicorn.Config(
        App(service, log_line),
        host=host,
        port=port,
        http=_protocol(settings.timeout),
        loop="none",
        lifespan="off",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain)),
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)

    def stop() -> None:
        service.draining = True
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
    try:
        await server.startup()
    except SystemExit:  # its way of saying that the address is taken
        raise BackendError(
            f"{host}:{port} cannot be listened on; is another server there? Choose another --port"
        ) from None
    address = server.servers[0].sockets[0].getsockname()
    log_line({"serving": list(service.models), "host": address[0], "port": address[1]})
    await server.main_loop()
    await server.shutdown()


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, which takes half the time of Python's own, where the system has it."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _protocol(seconds: float) -> type[HttpToolsProtocol]:
    """HTTP whose connections end where a request's headers do not come in time, and whose word on
    what is no HTTP is JSON too."""

    class Patient(HttpToolsProtocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def _watch(self) -> None:
            """Between requests, and while a request's headers come, the clock runs."""
            if self.cycle is not None and not self.cycle.response_complete:
                if self._waiting is not None:
                    self._waiting.cancel()
                    self._waiting = None
            elif self._waiting is None:
                self._waiting = self.loop.call_later(seconds, self.transport.close)

        def send_400_response(self, msg: str) -> None:
            body = json.dumps({"error": msg, "error_type": "bad_http"}).encode()
            head = (
                b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
                b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            )
            self.transport.write(head + body)
            self.transport.close()

    return Patient


def log_line(line: dict[str, Any]) -> None:
    """One JSON object on standard error."""
    print(json.dumps(line, ensure_ascii=False), file=sys.stderr, flush=True)
