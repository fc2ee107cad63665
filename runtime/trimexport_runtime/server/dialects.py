"""How a refusal is worded in each dialect: its JSON, and its status of HTTP where that differs."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from .refusals import STATUS, Refusal
from .schemas import ERROR, Schema

_TEXT: Schema = {"type": "string"}
_DETAILS: Schema = {
    "type": "object",
    "required": ["message", "type", "param", "code"],
    "properties": {
        "message": _TEXT,
        "type": _TEXT,
        "param": {"type": "null"},
        "code": {"type": ["string", "integer"]},
    },
}
_VLLM_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    499: "Client Closed Request",
    500: "InternalServerError",
}
_BAD_REQUESTS = ("bad_input", "too_many_texts", "text_too_long")


@dataclass(frozen=True)
class Dialect:
    """How a dialect words refusals. `bad_request` says that what is wrong with a request's content
    has status 400 there, whatever it is."""

    body: Callable[[Refusal, int], dict[str, Any]]
    schema: Schema
    bad_request: bool = True

    def status(self, kind: str) -> int:
        """The status of a refusal of this kind."""
        return 400 if self.bad_request and kind in _BAD_REQUESTS else STATUS[kind]


def _own(refusal: Refusal, status: int) -> dict[str, Any]:
    return refusal.body()


def _openai(refusal: Refusal, status: int) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    said, code = refusal.body()["error"], refusal.kind
    return {"error": {"message": said, "type": kind, "param": None, "code": code}}


def _vllm(refusal: Refusal, status: int) -> dict[str, Any]:
    kind = _VLLM_TYPES.get(status) or HTTPStatus(status).phrase
    said = refusal.body()["error"]
    return {"error": {"message": said, "type": kind, "param": None, "code": status}}


def _jina(refusal: Refusal, status: int) -> dict[str, Any]:
    said = refusal.body()["error"]
    return {**_vllm(refusal, status), "detail": said, "message": said}


def _cohere(refusal: Refusal, status: int) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "message": refusal.body()["error"]}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


OWN = Dialect(_own, ERROR, bad_request=False)
OPENAI = Dialect(_openai, _object(error=_DETAILS))
VLLM = Dialect(_vllm, _object(error=_DETAILS))
JINA = Dialect(_jina, _object(error=_DETAILS, detail=_TEXT, message=_TEXT))
COHERE = Dialect(_cohere, _object(id=_TEXT, message=_TEXT))
"""The dialects. OWN is text-embeddings-inference's too. Of those that ask for `/v1/rerank`, vLLM's
clients read `error`, Jina's `detail`, and Cohere's of version 1 `message`: JINA has all three."""
