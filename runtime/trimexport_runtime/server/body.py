"""A request's body: read within limits of size and time, decompressed, and parsed as JSON."""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import Any

from starlette.requests import Request

from .refusals import Refusal, shown

_CODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # with the window bits that zlib has them by
_NAMED = "gzip, deflate"


async def read(request: Request, most: int, seconds: float) -> bytes:
    """The body of `request`, decompressed if its Content-Encoding says so.

    Args:
        most: bytes that it may have, before it is decompressed and after.
        seconds: within which it must have come.

    Raises:
        Refusal: it has more, comes later, or is compressed in a way that is not known or is broken.
    """
    coding = _coding(request)
    body = await _received(request, most, seconds)
    return body if coding is None else _decompressed(body, coding, most)


def parse(body: bytes) -> Any:
    """The JSON value that `body` is.

    Raises:
        Refusal: it is none by RFC 8259 (Python's own NaN and Infinity are not), or an object in it
            has a key twice.
    """
    try:
        return json.loads(body, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal("bad_json", f"the body is not JSON: {error}") from None


def _coding(request: Request) -> str | None:
    """The compression of the body; None if there is none."""
    transfer = request.headers.get("transfer-encoding", "chunked")
    if transfer.lower() != "chunked":
        raise Refusal(
            "bad_encoding",
            f"the body's Transfer-Encoding is {transfer}; send chunked, or a Content-Length, and "
            f"compression ({_NAMED}) as Content-Encoding",
        )
    given = ",".join(request.headers.getlist("content-encoding")).lower()
    named = [name for part in given.split(",") if (name := part.strip()) not in ("", "identity")]
    if not named:
        return None
    if len(named) > 1 or named[0] not in _CODINGS:
        refusal = Refusal(
            "bad_encoding",
            f"the body's Content-Encoding is {', '.join(named)}; send one of {_NAMED}, or none",
        )
        refusal.headers["Accept-Encoding"] = _NAMED
        raise refusal
    return named[0]


async def _received(request: Request, most: int, seconds: float) -> bytes:
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > most:
        raise _too_large(most)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise _too_large(most)
    except TimeoutError:
        raise Refusal("timeout", f"the body did not come within {seconds:g} s") from None
    return bytes(body)


def _decompressed(body: bytes, coding: str, most: int) -> bytes:
    """What `body` holds. No more than `most` bytes of it are ever made."""
    reader = zlib.decompressobj(_CODINGS[coding])
    try:
        content = reader.decompress(body, most + 1)
    except zlib.error as error:
        raise Refusal("bad_compression", f"the body is not {coding}: {error}") from None
    if len(content) > most:
        raise _too_large(most, "decompressed, ")
    if not reader.eof:
        raise Refusal("bad_compression", f"the end of the {coding} body is missing; send all of it")
    if reader.unused_data:
        raise Refusal(
            "bad_compression",
            f"{len(reader.unused_data)} bytes stand behind the end of the {coding}; send it alone",
        )
    return content


def _too_large(most: int, how: str = "") -> Refusal:
    return Refusal("body_too_large", f"{how}the body has more than {most} bytes; send less")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, item in pairs:
        if name in value:
            raise ValueError(f"an object has the key {shown(name)} twice; send it once")
        value[name] = item
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
