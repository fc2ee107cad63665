"""The handlers of the routes that rank documents, score pairs and moderate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from . import cohere, jina, moderations, scoring_schemas, tei_rerank, vllm
from .dialects import COHERE, JINA, OPENAI, VLLM
from .exchange import Exchange
from .routes import Route
from .scoring import Pairs, Ranking, Scored, inputs_of, scored
from .service import Model


class ScoreHandlers:
    """The handlers of these routes, over one service."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """The routes, in the description's order."""
        score = Route(
            "POST", "/score", self.score, "Score pairs of texts, as vLLM does.",
            scoring_schemas.SCORE, scoring_schemas.SCORED, dialect=VLLM,
        )  # fmt: skip
        return (
            Route(
                "POST", "/rerank", self.tei_rerank,
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
            score,
            replace(score, path="/v1/score", described=False),
            Route(
                "POST", "/v1/moderations", self.moderate, "Classify texts, as OpenAI does.",
                scoring_schemas.MODERATE, scoring_schemas.MODERATED, dialect=OPENAI,
            ),
        )  # fmt: skip

    async def tei_rerank(self, request: Request) -> Response:
        """Rank texts as text-embeddings-inference does."""
        model = self._exchange.model(request)
        cuts = model.classifier.manifest.text_limit.truncate
        asked = tei_rerank.read(await self._exchange.json(request), cuts)
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
        asked = vllm.read(await self._exchange.json(request))
        model = self._exchange.model(request, asked.model)
        found = await self._scored(request, model, asked)
        return JSONResponse(vllm.answer(model.name, found))

    async def moderate(self, request: Request) -> Response:
        """Classify as OpenAI's moderations do."""
        asked = moderations.read(await self._exchange.json(request))
        model = self._exchange.model(request, asked.model)
        classified = await self._exchange.classify(request, model, asked.texts, asked.truncate)
        manifest = model.classifier.manifest
        return JSONResponse(moderations.answer(model.name, manifest, classified))

    async def _ranked(
        self,
        request: Request,
        read: Callable[[Any], Ranking],
        answer: Callable[[Ranking, str, Scored], Any],
    ) -> Response:
        asked = read(await self._exchange.json(request))
        model = self._exchange.model(request, asked.asked.model)
        found = await self._scored(request, model, asked.asked)
        return JSONResponse(answer(asked, model.name, found))

    async def _scored(self, request: Request, model: Model, asked: Pairs) -> Scored:
        """The scores of pairs, which are classified together."""
        manifest = model.classifier.manifest
        inputs = inputs_of(manifest, asked)
        classified = await self._exchange.classify(request, model, inputs, asked.truncate)
        return scored(manifest, asked, classified)
