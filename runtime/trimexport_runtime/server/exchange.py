"""What the handlers have in common: a request's model and body, and the answers to its texts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from starlette.requests import Request

from trimexport_runtime import Input

from . import body
from .batcher import Answered
from .protocol import ANSWER, GONE
from .refusals import Refusal, shown
from .service import Classified, Model, Service

LEASED = "trimexport.leased"
"""The key of a request's scope of the models that it asks, which are released when it ends."""


class Exchange:
    """Reads requests of HTTP, and has their texts classified by one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def model(self, request: Request, named: str | None = None) -> Model:
        """The model that the request's body or its query names, or the first.

        Args:
            named: the name in the body; None if there is none.

        Raises:
            Refusal: there is no such model, the two name different ones, or the query holds more.
        """
        given = request.query_params.multi_items()
        unknown = [name for name, _ in given if name != "model"]
        if unknown or len(given) > 1:
            raise Refusal(
                "bad_input",
                f"the query may hold one thing, model=NAME; this is {shown(dict(given))}",
            )
        asked = request.query_params.get("model")
        if None not in (named, asked) and named != asked:
            raise Refusal(
                "bad_input",
                f"the body names the model {shown(named)} and the query {shown(asked)}; name one",
            )
        return self.called(request, asked if named is None else named)

    def called(self, request: Request, name: str | None) -> Model:
        """The model called `name`, or the first, which stays for as long as the request does.

        Raises:
            Refusal: there is no such model.
        """
        model = self._service.model(name)
        self._service.lease(model)
        request.scope.setdefault(LEASED, []).append(model)
        return model

    async def body(self, request: Request) -> bytes:
        """The request's body, within the server's limits."""
        return await body.read(
            request, self._service.settings.max_body, self._service.settings.timeout
        )

    async def json(self, request: Request) -> Any:
        """The JSON value that the body is."""
        return body.parse(await self.body(request))

    async def classify(
        self, request: Request, model: Model, texts: Sequence[Input], truncate: bool
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
