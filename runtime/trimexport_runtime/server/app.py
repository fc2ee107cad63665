"""The routes of a server: what HTTP asks, who answers, and a line in the log for each request."""

from __future__ import annotations

import asyncio
import hmac
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from trimexport_runtime import __version__

from . import plain, tei, v2
from .openapi import PAGE, description
from .refusals import STATUS, Refusal
from .service import Service

OPEN = ("/health", "/v2/health/live", "/v2/health/ready")  # nobody needs a key to ask these
Handler = Callable[[Request], Awaitable[Response]]


class App:
    """The handlers of the routes, over one service."""

    def __init__(self, service: Service, log: Callable[[dict[str, Any]], None]) -> None:
        self._service = service
        self._log = log

    def routes(self) -> list[Route]:
        """Every route."""
        table: list[tuple[str, str, Handler]] = [
            ("POST", "/predict", self.predict),
            ("POST", "/classify", self.classify),
            ("GET", "/health", self.health),
            ("GET", "/info", self.info),
            ("GET", "/metrics", self.metrics),
            ("GET", "/openapi.json", self.openapi),
            ("GET", "/docs", self.docs),
            ("GET", "/v2", self.server_metadata),
            ("GET", "/v2/health/live", self.health),
            ("GET", "/v2/health/ready", self.health),
            ("GET", "/v2/models/{name}", self.model_metadata),
            ("GET", "/v2/models/{name}/ready", self.model_ready),
            ("POST", "/v2/models/{name}/infer", self.infer),
            ("GET", "/v2/models/{name}/versions/1", self.model_metadata),
            ("GET", "/v2/models/{name}/versions/1/ready", self.model_ready),
            ("POST", "/v2/models/{name}/versions/1/infer", self.infer),
        ]
        return [Route(path, self._guarded(path, it), methods=[how]) for how, path, it in table]

    def _guarded(self, route: str, handler: Handler) -> Handler:
        """A handler whose every end is an answer, counted and logged."""

        async def guarded(request: Request) -> Response:
            began = time.monotonic()
            response = await self._answer(route, handler, request)
            self._note(route, request, response, time.monotonic() - began)
            return response

        return guarded

    async def _answer(self, route: str, handler: Handler, request: Request) -> Response:
        try:
            if route not in OPEN:
                self._check_key(request)
                self._check_taking()
            return await handler(request)
        except Refusal as refusal:
            return refused(self._service, refusal)
        except ClientDisconnect:
            return refused(self._service, Refusal("timeout", "the client is gone"))
        except Exception as error:  # one request fails, and no other
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return refused(self._service, Refusal("failed", "the server failed on this request"))

    def _note(self, route: str, request: Request, response: Response, seconds: float) -> None:
        metrics = self._service.metrics
        metrics.requests.labels(route, str(response.status_code)).inc()
        metrics.seconds.labels("total").observe(seconds)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "method": request.method,
            "path": request.url.path,
            "status": response.status_code,
            "milliseconds": round(1000 * seconds, 2),
            **getattr(request.state, "note", {}),
        }
        self._log(line)

    def _check_key(self, request: Request) -> None:
        key = self._service.settings.api_key
        given = request.headers.get("authorization", "")
        if key is not None and not hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
            raise Refusal("unauthorized", "send the server's key: Authorization: Bearer KEY")

    def _check_taking(self) -> None:
        if self._service.draining:
            raise Refusal("shutting_down", "the server is shutting down; ask another", 1)

    async def _body(self, request: Request) -> bytes:
        """The request's body, within the limits of size and time."""
        settings = self._service.settings
        most = settings.max_body
        too_large = Refusal("body_too_large", f"the body has more than {most} bytes; send less")
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(settings.timeout):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise Refusal(
                "timeout", f"the body did not come within {settings.timeout:g} s"
            ) from None
        return bytes(body)

    async def _json(self, request: Request) -> Any:
        body = await self._body(request)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refusal("bad_json", f"the body is not JSON: {error}") from None

    def _describe(self, request: Request, model: str, texts: list[str]) -> None:
        """What the log says of a request besides."""
        request.state.note = {"model": model, "texts": len(texts)}
        if self._service.settings.log_texts:
            request.state.note["content"] = texts

    async def predict(self, request: Request) -> Response:
        """As text-embeddings-inference."""
        asked = tei.read(await self._json(request))
        model = self._service.model(request.query_params.get("model"))
        self._describe(request, model.name, asked.texts)
        found = await self._service.classify(model, asked.texts, asked.truncate)
        return JSONResponse(tei.answer(asked, model.classifier.labels, found))

    async def classify(self, request: Request) -> Response:
        """The plain form."""
        texts, truncate = plain.read(await self._json(request))
        model = self._service.model(request.query_params.get("model"))
        self._describe(request, model.name, texts)
        found = await self._service.classify(model, texts, truncate)
        return JSONResponse(plain.answer(model, found))

    async def infer(self, request: Request) -> Response:
        """As the Open Inference Protocol."""
        model = self._service.model(request.path_params["name"])
        body = await self._body(request)
        asked = v2.read(body, request.headers.get(v2.HEADER))
        self._describe(request, model.name, asked.texts)
        reply = v2.answer(
            asked, model, await self._service.classify(model, asked.texts, asked.truncate)
        )
        if reply.header is None:
            return Response(reply.body, media_type="application/json")
        headers = {"Inference-Header-Content-Length": str(reply.header)}
        return Response(reply.body, headers=headers, media_type="application/octet-stream")

    async def health(self, request: Request) -> Response:
        """Alive; and ready unless it is shutting down."""
        if request.url.path.endswith("/live"):
            return JSONResponse({"live": True})
        self._check_taking()
        return JSONResponse({"ready": True})

    async def info(self, request: Request) -> Response:
        """What is served, and within which limits."""
        settings = asdict(self._service.settings)
        models = [
            {
                "name": it.name,
                "labels": it.classifier.labels,
                "variant": it.classifier.variant.name,
                "provider": it.classifier.provider,
                "text_limit": asdict(it.classifier.manifest.text_limit),
                "source": it.classifier.manifest.source.model,
            }
            for it in self._service.models.values()
        ]
        limits = {name: settings[name] for name in ("max_body", "max_texts", "max_queue")}
        return JSONResponse({"version": __version__, "models": models, "limits": limits})

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(self._service.metrics.text(), media_type=kind)

    async def openapi(self, request: Request) -> Response:
        """The description of all this."""
        return JSONResponse(description(__version__))

    async def docs(self, request: Request) -> Response:
        """The same for people."""
        return HTMLResponse(PAGE)

    async def server_metadata(self, request: Request) -> Response:
        """Of the server."""
        return JSONResponse(v2.server_metadata(__version__))

    async def model_metadata(self, request: Request) -> Response:
        """Of a model."""
        return JSONResponse(v2.model_metadata(self._service.model(request.path_params["name"])))

    async def model_ready(self, request: Request) -> Response:
        """Whether a model answers."""
        model = self._service.model(request.path_params["name"])
        return JSONResponse({"name": model.name, "ready": True})


def refused(service: Service, refusal: Refusal) -> Response:
    """The answer that a refusal makes."""
    service.metrics.errors.labels(refusal.kind).inc()
    return JSONResponse(refusal.body(), refusal.status, headers=refusal.headers)


def make_app(service: Service, log: Callable[[dict[str, Any]], None]) -> Starlette:
    """The application."""
    routes = App(service, log).routes()

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == STATUS["bad_method"]:
            allowed = (error.headers or {}).get("Allow", "")
            refusal = Refusal("bad_method", f"{request.url.path} takes {allowed}")
            refusal.headers["Allow"] = allowed
        else:
            paths = sorted({route.path for route in routes})
            refusal = Refusal("no_route", f"no such path; there are: {', '.join(paths)}")
        return refused(service, refusal)

    return Starlette(routes=routes, exception_handlers={HTTPException: unknown})
