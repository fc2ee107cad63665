"""The kinds of refusal of a request, each with its status of HTTP."""

from __future__ import annotations

import reprlib

STATUS = {
    "bad_compression": 400,
    "bad_http": 400,
    "bad_json": 400,
    "no_reranker": 400,
    "unauthorized": 401,
    "no_route": 404,
    "no_model": 404,
    "bad_method": 405,
    "timeout": 408,
    "body_too_large": 413,
    "text_too_long": 413,
    "bad_encoding": 415,
    "bad_input": 422,
    "too_many_texts": 422,
    "queue_full": 429,
    "client_gone": 499,
    "failed": 500,
    "shutting_down": 503,
}

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


class Refusal(Exception):
    """The reason why a request is refused. `kind` is a key of `STATUS`, and `retry_after` says
    after how many seconds the client may ask again."""

    def __init__(self, kind: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if kind == "shutting_down":
            self.headers["Connection"] = "close"
        if kind == "unauthorized":
            self.headers["WWW-Authenticate"] = "Bearer"

    def body(self) -> dict[str, str]:
        """The JSON that the client is sent."""
        text = str(self).encode(errors="backslashreplace").decode()  # it may quote a lone surrogate
        return {"error": text, "error_type": self.kind}


def shown(value: object) -> str:
    """A value of a request as a refusal may quote it: cut, however long or deep it is."""
    return _SHORT.repr(value)
