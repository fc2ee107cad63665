"""The handlers of the routes: each reads a request of HTTP, asks the service, and answers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from trimexport_runtime import __version__

from . import body, cohere, jina, moderations, plain, scoring_schemas, tei, tei_rerank, v2, vllm
from .batcher import Answered
from .dialects import COHERE, JINA, OPENAI, VLLM
from .openapi import description, page
from .protocol import ANSWER, GONE
from .refusals import Refusal, shown
from .routes import Route
from .schemas import CLASSIFIED, INFER, INFERRED, OBJECT, PREDICT, PREDICTED, TEXTS
from .scoring import Pairs, Ranking, Scored, inputs_of, scored
from .service import Classified, Model, Service


class Handlers:
    """The handlers of the routes, over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """Every route of the server; those that are described come in the description's order."""
        taking = "Whether the server takes requests."
        described = (
            Route(
                "POST", "/predict", self.predict,
                "Classify, as text-embeddings-inference does.", PREDICT, PREDICTED,
            ),
            Route("POST", "/classify", self.classify, "Classify texts.", TEXTS, CLASSIFIED),
            Route(
                "POST", "/rerank", self.rerank,
                "Rank texts, as text-embeddings-inference does.",
                scoring_schemas.RERANK, scoring_schemas.RERANKED,
            ),
            Route(
                "POST", "/v1/rerank", self.jina_rerank, "Rank documents, as Jina and vLLM do.",
                scoring_schemas.JINA_RERANK, scoring_schemas.JINA_RERANKED, dialect=JINA,
            ),
            Route(
                "POST", "/v2/rerank", self.cohere_rerank, "Rank documents, as Cohere does.",
                scoring_schemas.COHERE_RERANK, scoring_schemas.COHERE_RERANKED, dialect=COHERE,
            ),
            Route(
                "POST", "/score", self.score, "Score pairs of texts, as vLLM does.",
                scoring_schemas.SCORE, scoring_schemas.SCORED, dialect=VLLM,
            ),
            Route(
                "POST", "/v1/moderations", self.moderate, "Classify texts, as OpenAI does.",
                scoring_schemas.MODERATE, scoring_schemas.MODERATED, dialect=OPENAI,
            ),
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
                "Classify, in that protocol.", INFER, INFERRED,
            ),
        )  # fmt: skip
        aliases = (  # a bundle has one version, so these are the routes without it
            replace(route, path=route.path.replace("{name}", "{name}/versions/1"), described=False)
            for route in described
            if "{name}" in route.path
        )
        scores = (
            replace(route, path="/v1/score", described=False)
            for route in described
            if route.path == "/score"
        )
        pages = (
            Route("GET", "/openapi.json", self.openapi, "This description.", described=False),
            Route("GET", "/docs", self.docs, "This page.", described=False),
        )
        return (*described, *aliases, *scores, *pages)

    async def predict(self, request: Request) -> Response:
        """Classify as text-embeddings-inference does."""
        model = self._model(request)
        value = await self._json(request)
        asked = tei.read(value, model.classifier.manifest.text_limit.truncate)
        classified = await self._classify(request, model, asked.texts, asked.truncate)
        return JSONResponse(tei.answer(asked, model.classifier.labels, classified))

    async def classify(self, request: Request) -> Response:
        """Classify in the server's own form."""
        model = self._model(request)
        texts, truncate = plain.read(await self._json(request))
        classified = await self._classify(request, model, texts, truncate)
        return JSONResponse(plain.answer(model, classified))

    async def infer(self, request: Request) -> Response:
        """Classify in the Open Inference Protocol."""
        model = self._service.model(request.path_params["name"])
        asked = v2.read(await self._body(request), request.headers.get(v2.HEADER))
        classified = await self._classify(request, model, asked.texts, asked.truncate)
        reply = v2.answer(asked, model, classified)
        if reply.header is None:
            return Response(reply.body, media_type="application/json")
        headers = {"Inference-Header-Content-Length": str(reply.header)}
        return Response(reply.body, headers=headers, media_type="application/octet-stream")

    async def rerank(self, request: Request) -> Response:
        """Rank texts as text-embeddings-inference does."""
        model = self._model(request)
        cuts = model.classifier.manifest.text_limit.truncate
        asked = tei_rerank.read(await self._json(request), cuts)
        found = await self._scored(request, model, asked.asked)
        return JSONResponse(tei_rerank.answer(asked, found))

    async def jina_rerank(self, request: Request) -> Response:
        """Rank documents as Jina and vLLM do."""
        return await self._ranked(request, jina.read, jina.answer)

    async def cohere_rerank(self, request: Request) -> Response:
        """Rank documents as Cohere does."""
        return await self._ranked(request, cohere.read, cohere.answer)

    async def score(self, request: Request) -> Response:
        """Score pairs as vLLM does."""
        asked = vllm.read(await self._json(request))
        model = self._model(request, asked.model)
        found = await self._scored(request, model, asked)
        return JSONResponse(vllm.answer(model.name, found))

    async def moderate(self, request: Request) -> Response:
        """Classify as OpenAI's moderations do."""
        asked = moderations.read(await self._json(request))
        model = self._model(request, asked.model)
        classified = await self._classify(request, model, asked.texts, asked.truncate)
        return JSONResponse(moderations.answer(model.name, model.classifier.manifest, classified))

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
        return JSONResponse({"version": __version__, "models": models, "limits": limits})

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

    async def model_metadata(self, request: Request) -> Response:
        """A model's metadata in the Open Inference Protocol."""
        return JSONResponse(v2.model_metadata(self._service.model(request.path_params["name"])))

    async def model_ready(self, request: Request) -> Response:
        """Say that a model, if there is one of the name, answers."""
        model = self._service.model(request.path_params["name"])
        return JSONResponse({"name": model.name, "ready": True})

    async def _ranked(
        self,
        request: Request,
        read: Callable[[Any], Ranking],
        answer: Callable[[Ranking, str, Scored], Any],
    ) -> Response:
        asked = read(await self._json(request))
        model = self._model(request, asked.asked.model)
        found = await self._scored(request, model, asked.asked)
        return JSONResponse(answer(asked, model.name, found))

    async def _scored(self, request: Request, model: Model, asked: Pairs) -> Scored:
        """The scores of pairs, which are classified together."""
        manifest = model.classifier.manifest
        inputs = inputs_of(manifest, asked)
        classified = await self._classify(request, model, inputs, asked.truncate)
        return scored(manifest, asked, classified)

    def _model(self, request: Request, named: str | None = None) -> Model:
        """The model that the request's body or its query names, or the first."""
        given = request.query_params.multi_items()
        unknown = [name for name, _ in given if name != "model"]
        if unknown or len(given) > 1:
            raise Refusal(
                "bad_input",
                f"the query may hold one thing, model=NAME; this is {shown(dict(given))}",
            )
        asked = request.query_params.get("model")
        if named is not None and asked is not None and named != asked:
            raise Refusal(
                "bad_input", f"the body names the model {shown(named)}, the query {shown(asked)}"
            )
        return self._service.model(asked if named is None else named)

    async def _body(self, request: Request) -> bytes:
        return await body.read(
            request, self._service.settings.max_body, self._service.settings.timeout
        )

    async def _json(self, request: Request) -> Any:
        return body.parse(await self._body(request))

    async def _classify(
        self, request: Request, model: Model, texts: list[str], truncate: bool
    ) -> Classified:
        """Classify the texts of a request, and note them for its line in the log."""
        scope = request.scope
        scope["note"] = {"model": model.name, "texts": len(texts)}
        if self._service.settings.log_texts:
            scope["note"]["content"] = texts

        def watch(future: Future[Answered]) -> None:
            scope[ANSWER] = future
            if GONE in scope:
                future.cancel()

        return await self._service.classify(model, texts, truncate, watch)


def _about(model: Model) -> dict[str, Any]:
    """What there is to know of a bundle that is served."""
    classifier = model.classifier
    variant, manifest = classifier.variant, classifier.manifest
    return {
        "name": model.name,
        "labels": classifier.labels,
        "variant": variant.name,
        "outside_tolerance": variant.outside_tolerance,
        "taken_over": None if variant.taken_over is None else asdict(variant.taken_over),
        "provider": classifier.provider,
        "text_limit": asdict(manifest.text_limit),
        "source": manifest.source.model,
    }
