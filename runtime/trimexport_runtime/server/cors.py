"""Which pages of other origins may read the answers: https://fetch.spec.whatwg.org/#http-cors-protocol"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

ANY = "*"
_SENT = "Authorization, Content-Type, Content-Encoding, Inference-Header-Content-Length"
_READ = "Inference-Header-Content-Length, Retry-After, WWW-Authenticate"
_SECONDS = 3600  # for which a browser need not ask again


def headers(request: Request, origins: Sequence[str]) -> dict[str, str]:
    """The headers by which a browser lets a page read the answer to `request`, if its origin is
    one of `origins`."""
    if not origins:
        return {}
    if ANY in origins:
        return {"Access-Control-Allow-Origin": ANY, "Access-Control-Expose-Headers": _READ}
    given = request.headers.get("origin", "")
    if given.lower() not in origins:
        return {"Vary": "Origin"}
    return {
        "Access-Control-Allow-Origin": given,
        "Access-Control-Expose-Headers": _READ,
        "Vary": "Origin",
    }


def preflight(request: Request, origins: Sequence[str]) -> Response | None:
    """The answer to a browser that asks whether a page may send a request; None if that is not what
    is asked, or its origin is none of `origins`."""
    asks = request.method == "OPTIONS" and "access-control-request-method" in request.headers
    if not asks or "Access-Control-Allow-Origin" not in headers(request, origins):
        return None
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": _SENT,
            "Access-Control-Max-Age": str(_SECONDS),
        },
    )
