"""The handlers of the routes: each reads a request of HTTP, asks the service, and answers."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from trimexport_runtime import __version__
from trimexport_runtime.manifest import Field

from . import plain, repository, tei, v2
from .exchange import Exchange
from .openapi import description, page
from .routes import Route
from .schemas import (
    CLASSIFIED,
    INDEX,
    INDEXED,
    OBJECT,
    PREDICTED,
    infer,
    inferred,
    predict,
    texts,
)
from .score_handlers import ScoreHandlers
from .service import Model, Service


class Handlers:
    """The handlers of the routes, over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._exchange = Exchange(service)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Every route of the server, with the schemas of what is served now; those that are
        described come in the description's order."""
        models = self._service.models.values()
        manifests = [model.classifier.manifest for model in models]
        prompts = [manifest.prompt.places for manifest in manifests] or [(Field("text"),)]
        taking = "Whether the server takes requests."
        described = (
            Route(
                "POST", "/predict", self.predict,
                "Classify, as text-embeddings-inference does.", predict(prompts), PREDICTED,
            ),
            Route(
                "POST", "/classify", self.classify, "Classify texts.", texts(prompts), CLASSIFIED,
            ),
            *ScoreHandlers(self._exchange).routes,
            Route("GET", "/health", self.ready, taking, None, OBJECT),
            Route(
                "GET", "/info", self.info,
                "What is served, and within which limits.", None, OBJECT,
            ),
            Route("GET", "/metrics", self.metrics, "Counters and histograms for Prometheus."),
            Route(
                "GET", "/v2", self.server_metadata,
                "The server, in the Open Inference Protocol.", None, OBJECT,
            ),
            Route(
                "POST", "/v2/repository/index", self.repository_index,
                "The models, and those that cannot be loaded.", INDEX, INDEXED,
            ),
            Route("GET", "/v2/health/live", self.live, "Whether the server lives.", None, OBJECT),
            Route("GET", "/v2/health/ready", self.ready, taking, None, OBJECT),
            Route(
                "GET", "/v2/models/{name}", self.model_metadata,
                "A model's inputs and outputs.", None, OBJECT,
            ),
            Route(
                "GET", "/v2/models/{name}/ready", self.model_ready,
                "Whether a model takes requests.", None, OBJECT,
            ),
            Route(
                "POST", "/v2/models/{name}/infer", self.infer,
                "Classify, in that protocol.", infer(manifests), inferred(manifests),
            ),
        )  # fmt: skip
        aliases = (  # a bundle has one version, so these are the routes without it
            replace(route, path=route.path.replace("{name}", "{name}/versions/1"), described=False)
            for route in described
            if "{name}" in route.path
        )
        pages = (
            Route("GET", "/openapi.json", self.openapi, "This description.", described=False),
            Route("GET", "/docs", self.docs, "This page.", described=False),
        )
        return (*described, *aliases, *pages)

    async def predict(self, request: Request) -> Response:
        """Classify as text-embeddings-inference does."""
        model = self._exchange.model(request)
        value = await self._exchange.json(request)
        manifest = model.classifier.manifest
        asked = tei.read(value, manifest.text_limit.truncate, manifest.prompt.places)
        classified = await self._exchange.classify(request, model, asked.texts, asked.truncate)
        return JSONResponse(tei.answer(asked, model.classifier.labels, classified))

    async def classify(self, request: Request) -> Response:
        """Classify in the server's own form."""
        model = self._exchange.model(request)
        fields = model.classifier.manifest.prompt.places
        texts, truncate = plain.read(await self._exchange.json(request), fields)
        classified = await self._exchange.classify(request, model, texts, truncate)
        return JSONResponse(plain.answer(model, classified))

    async def infer(self, request: Request) -> Response:
        """Classify in the Open Inference Protocol."""
        model = self._exchange.called(request, request.path_params["name"])
        header = request.headers.get(v2.HEADER)
        asked = v2.read(await self._exchange.body(request), header, model.classifier.manifest)
        classified = await self._exchange.classify(request, model, asked.texts, asked.truncate)
        reply = v2.answer(asked, model, classified)
        if reply.header is None:
            return Response(reply.body, media_type="application/json")
        headers = {"Inference-Header-Content-Length": str(reply.header)}
        return Response(reply.body, headers=headers, media_type="application/octet-stream")

    async def live(self, request: Request) -> Response:
        """Say that the server lives, also while it shuts down."""
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        """Say whether the server takes requests, which it does unless it is shutting down."""
        self._service.check_running()
        return JSONResponse({"ready": True})

    async def info(self, request: Request) -> Response:
        """The bundles that are served, and the server's limits."""
        settings = asdict(self._service.settings)
        models = [_about(model) for model in self._service.models.values()]
        limits = {name: settings[name] for name in ("max_body", "max_texts", "max_queue")}
        value = {"version": __version__, "models": models, "limits": limits}
        if self._service.unavailable is not None:
            value["unavailable"] = dict(self._service.unavailable)
        return JSONResponse(value)

    async def metrics(self, request: Request) -> Response:
        """The counters and histograms, for Prometheus."""
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(self._service.metrics.text(), media_type=kind)

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI description of the routes."""
        return JSONResponse(description(self.routes, __version__, list(self._service.models)))

    async def docs(self, request: Request) -> Response:
        """A page for people that lists the routes."""
        return HTMLResponse(page(self.routes))

    async def server_metadata(self, request: Request) -> Response:
        """The server's metadata in the Open Inference Protocol."""
        return JSONResponse(v2.server_metadata(__version__))

    async def repository_index(self, request: Request) -> Response:
        """The models in the protocol's extension for repositories."""
        ready = repository.only_ready(await self._exchange.body(request))
        unavailable = self._service.unavailable or {}
        return JSONResponse(repository.index(self._service.models, unavailable, ready))

    async def model_metadata(self, request: Request) -> Response:
        """A model's metadata in the Open Inference Protocol."""
        return JSONResponse(v2.model_metadata(self._service.model(request.path_params["name"])))

    async def model_ready(self, request: Request) -> Response:
        """Say that a model, if there is one of the name, answers."""
        model = self._service.model(request.path_params["name"])
        return JSONResponse({"name": model.name, "ready": True})


def _about(model: Model) -> dict[str, Any]:
    """What there is to know of a bundle that is served."""
    classifier = model.classifier
    variant, manifest = classifier.variant, classifier.manifest
    return {
        "name": model.name,
        "labels": classifier.labels,
        "questions": [
            {"name": it.name, "text": it.text, "labels": [label.name for label in it.labels]}
            for it in manifest.questions
        ],
        "variant": variant.name,
        "outside_tolerance": variant.outside_tolerance,
        "taken_over": None if variant.taken_over is None else asdict(variant.taken_over),
        "provider": classifier.provider,
        "fields": [
            {"name": it.name, "default": it.default, "cut": it.name == manifest.cut_field}
            for it in manifest.prompt.places
        ],
        "text_limit": asdict(manifest.text_limit),
        "source": manifest.source.model,
    }
