"""The ASGI application, which answers each request, counts it and writes a line about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from . import cors
from .dialects import OWN, Dialect
from .exchange import LEASED
from .handlers import Handlers
from .key import is_sent
from .refusals import Refusal
from .routes import Router
from .service import Service

OPEN = ("/health", "/v2/health/live", "/v2/health/ready")
"""The paths that are answered without the API key, also while the server is shutting down."""


class App:
    """An application of ASGI over a service.

    https://asgi.readthedocs.io/en/latest/specs/www.html
    """

    def __init__(self, service: Service, log: Callable[[dict[str, Any]], None]) -> None:
        self._service = service
        self._log = log
        self._router = Router(Handlers(service).routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. However it ends, there is an answer, which is counted and logged."""
        began = time.monotonic()
        request = Request(scope, receive)
        response = await self._answer(request)
        response.headers.update(cors.headers(request, self._service.settings.cors_origins))
        try:
            await response(scope, receive, send)
        finally:
            for model in scope.pop(LEASED, ()):
                self._service.release(model)
            self._note(request, response, time.monotonic() - began)

    async def _answer(self, request: Request) -> Response:
        scope, dialect = request.scope, OWN
        origins = self._service.settings.cors_origins
        try:
            if (asked := cors.preflight(request, origins)) is not None:
                return asked
            route, scope["path_params"] = self._router.find(scope)
            scope["route"], dialect = route.path, route.dialect
            if route.path not in OPEN:
                self._check_key(request)
                self._service.check_running()
            return await route.handler(request)
        except Refusal as refusal:
            return self._refused(refusal, dialect)
        except ClientDisconnect:
            return self._refused(Refusal("client_gone", "the client is gone"), dialect)
        except asyncio.CancelledError:  # the time for accepted requests is over
            ended = "the server ended before the answer; ask another"
            return self._refused(Refusal("shutting_down", ended, 1), dialect)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # one request fails, and no other; a panic in Rust is such
            self._log({"level": "error", "error": f"{type(error).__name__}: {error}"})
            return self._refused(Refusal("failed", "the server failed on this request"), dialect)

    def _refused(self, refusal: Refusal, dialect: Dialect) -> Response:
        self._service.metrics.errors.labels(refusal.kind).inc()
        status = dialect.status(refusal.kind)
        return JSONResponse(dialect.body(refusal, status), status, headers=refusal.headers)

    def _check_key(self, request: Request) -> None:
        key = self._service.settings.api_key
        if key is None:
            return
        given = request.headers.get("authorization", "").encode("latin-1")
        if not is_sent(given, key):
            raise Refusal("unauthorized", "send the server's key: Authorization: Bearer KEY")

    def _note(self, request: Request, response: Response, seconds: float) -> None:
        scope = request.scope
        self._service.metrics.note(scope.get("route", "none"), response.status_code, seconds)
        self._log(
            {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "method": scope["method"],
                "path": scope["path"],
                "status": response.status_code,
                "milliseconds": round(1000 * seconds, 2),
                **scope.get("note", {}),
            }
        )
