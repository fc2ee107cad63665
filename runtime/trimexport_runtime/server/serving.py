"""Run the application: sockets, SIGTERM, the end."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Mapping

import uvicorn

from trimexport_runtime.classifier import Classifier
from trimexport_runtime.errors import BackendError

from .app import App
from .log import Log, LogHandler
from .protocol import protocol
from .service import Service
from .settings import Settings

LAST_WORDS = 0.5  # seconds in which requests that will not be answered hear so


def serve(classifiers: Mapping[str, Classifier], settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT: then take no more, answer what was accepted, and return. A
    second signal ends the process at once.

    Raises:
        BackendError: the address cannot be taken.
    """
    log = Log()
    logging.getLogger("uvicorn.error").handlers = [LogHandler(log)]
    service = Service(classifiers, settings)
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(_serve(service, log, host, port))
    finally:
        service.close()
        log.close()


async def _serve(service: Service, log: Log, host: str, port: int) -> None:
    settings = service.settings
    config = uvicorn.Config(
        App(service, log),
        host=host,
        port=port,
        http=protocol(settings.timeout, service.metrics.note_bad),
        ws="none",
        loop="none",
        lifespan="off",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    _stop_at_signals(service, server)
    try:
        await server.startup()
    except SystemExit:  # its way of saying that the address is taken
        raise BackendError(
            f"{host}:{port} cannot be listened on; is another server there? Choose another --port"
        ) from None
    address = server.servers[0].sockets[0].getsockname()
    log({"serving": list(service.models), "host": address[0], "port": address[1]})
    await server.main_loop()
    await _end(server, settings.drain)


def _stop_at_signals(service: Service, server: uvicorn.Server) -> None:
    """The first is heard; a second one is as if nobody listened."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def stop(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        service.draining = True
        server.should_exit = True
        loop.call_soon_threadsafe(lambda: None)  # so that it looks

    for number in numbers:
        signal.signal(number, stop)


async def _end(server: uvicorn.Server, drain: float) -> None:
    """Take no more connections; tell those that are there, for what they have sent already, that
    the server ends. Let what was accepted end in time; what does not is told so too."""
    for listener in server.servers:
        listener.close()
    await asyncio.sleep(min(drain, LAST_WORDS))
    ending = asyncio.ensure_future(server.shutdown())
    await asyncio.wait([ending], timeout=drain)
    for task in list(server.server_state.tasks):
        task.cancel()
    await asyncio.wait([ending], timeout=LAST_WORDS)
    ending.cancel()


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, which takes half the time of Python's own, where the system has it."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
