"""The life of a server: it listens, answers, and ends in order at SIGTERM."""

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
from .packs import PackFolder, follow, note_bad
from .protocol import protocol
from .service import Service
from .settings import Settings

LAST_WORDS = 0.5  # seconds for telling clients that the server ends


def serve(
    classifiers: Mapping[str, Classifier],
    settings: Settings,
    host: str,
    port: int,
    folder: PackFolder | None = None,
) -> None:
    """Serve bundles, or the packs in a folder as they change, until SIGTERM or SIGINT; then accept
    no more requests, answer those that were accepted, and return. A second signal ends the process
    at once.

    Raises:
        BundleError: the folder cannot be read.
        BackendError: the address cannot be listened on.
    """
    if folder is not None:
        classifiers = folder.look().loaded
    log = Log()
    handler = LogHandler(log)
    logging.getLogger().addHandler(handler)  # every line on standard error is JSON
    unavailable = None if folder is None else dict(folder.unavailable)
    service = Service(classifiers, settings, unavailable)
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(_serve(service, log, host, port, folder))
    finally:
        service.close()
        logging.getLogger().removeHandler(handler)
        log.close()


async def _serve(
    service: Service, log: Log, host: str, port: int, folder: PackFolder | None
) -> None:
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
    except SystemExit:  # uvicorn raises it if it cannot listen
        raise BackendError(
            f"{host}:{port} cannot be listened on; is another server there? Choose another --port"
        ) from None
    address = server.servers[0].sockets[0].getsockname()
    log({"serving": list(service.models), "host": address[0], "port": address[1]})
    for name, reason in (service.unavailable or {}).items():
        note_bad(name, reason, log)
    following = None if folder is None else asyncio.create_task(follow(service, folder, log))
    await server.main_loop()
    if following is not None:
        following.cancel()
    await _end(server, settings.drain)


def _stop_at_signals(service: Service, server: uvicorn.Server) -> None:
    """End the server at the first SIGTERM or SIGINT; a second one ends the process."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def stop(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        service.draining = True
        server.should_exit = True
        loop.call_soon_threadsafe(lambda: None)  # wakes the loop, which then sees should_exit

    for number in numbers:
        signal.signal(number, stop)


async def _end(server: uvicorn.Server, drain: float) -> None:
    """Stop listening, give accepted requests `drain` seconds, and cancel those that are not done.

    For `LAST_WORDS` seconds before that, requests on open connections are answered with a refusal,
    and for as many after it those that were cancelled are.
    """
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
    """A new event loop: uvloop's, which takes half the time of Python's own, but not on Windows,
    where there is none."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
