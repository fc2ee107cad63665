"""What each route does: HTTP in, values through the service, HTTP out."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from trimexport_runtime import __version__

from . import plain, tei, v2
from .batcher import Answered
from .openapi import PAGE, description
from .protocol import ANSWER, GONE
from .refusals import Refusal
from .routing import Handler
from .service import Classified, Model, Service


class Handlers:
    """The handlers of the routes, over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def table(self) -> list[tuple[str, str, Handler]]:
        """Every route: method, path, handler."""
        return [
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

    async def predict(self, request: Request) -> Response:
        """As text-embeddings-inference."""
        asked = tei.read(await self._json(request))
        model = self._service.model(request.query_params.get("model"))
        found = await self._classified(request, model, asked.texts, asked.truncate)
        return JSONResponse(tei.answer(asked, model.classifier.labels, found))

    async def classify(self, request: Request) -> Response:
        """The plain form."""
        texts, truncate = plain.read(await self._json(request))
        model = self._service.model(request.query_params.get("model"))
        found = await self._classified(request, model, texts, truncate)
        return JSONResponse(plain.answer(model, found))

    async def infer(self, request: Request) -> Response:
        """As the Open Inference Protocol."""
        model = self._service.model(request.path_params["name"])
        body = await self._body(request)
        asked = v2.read(body, request.headers.get(v2.HEADER))
        found = await self._classified(request, model, asked.texts, asked.truncate)
        reply = v2.answer(asked, model, found)
        if reply.header is None:
            return Response(reply.body, media_type="application/json")
        headers = {"Inference-Header-Content-Length": str(reply.header)}
        return Response(reply.body, headers=headers, media_type="application/octet-stream")

    async def health(self, request: Request) -> Response:
        """Alive; and ready unless it is shutting down."""
        if request.url.path.endswith("/live"):
            return JSONResponse({"live": True})
        self._service.check_taking()
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
        return JSONResponse(description(__version__, list(self._service.models)))

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

    async def _classified(
        self, request: Request, model: Model, texts: list[str], truncate: bool
    ) -> Classified:
        """The answers; and the request's line in the log says what of."""
        scope = request.scope
        scope["note"] = {"model": model.name, "texts": len(texts)}
        if self._service.settings.log_texts:
            scope["note"]["content"] = texts

        def watch(future: Future[Answered]) -> None:
            scope[ANSWER] = future
            if GONE in scope:
                future.cancel()

        return await self._service.classify(model, texts, truncate, watch)
