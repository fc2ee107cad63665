"""Run the application: sockets, slow clients, SIGTERM."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from trimexport_runtime.classifier import Classifier
from trimexport_runtime.errors import BackendError

from .app import make_app
from .service import Service
from .settings import Settings


def serve(classifiers: Mapping[str, Classifier], settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT: then take no more, answer what was accepted, and return.

    Raises:
        BackendError: the address cannot be taken.
    """
    service = Service(classifiers, settings)
    try:
        asyncio.run(_serve(service, settings, host, port))
    finally:
        service.close()


async def _serve(service: Service, settings: Settings, host: str, port: int) -> None:
    config = uvicorn.Config(
        make_app(service, log_line),
        host=host,
        port=port,
        http=_protocol(settings.timeout),
        loop="asyncio",
        lifespan="off",
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
        loop.add_signal_handler(number, stop)
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


def _protocol(seconds: float) -> type[H11Protocol]:
    """HTTP whose connections end where a request's headers do not come in time."""

    class Patient(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.loop.call_later(seconds, self._end_if_silent)

        def _end_if_silent(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return Patient


def log_line(line: dict[str, Any]) -> None:
    """One JSON object on standard error."""
    print(json.dumps(line, ensure_ascii=False), file=sys.stderr, flush=True)
