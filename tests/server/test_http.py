"""What a client may do in HTTP: compress, offer other protocols, send a key, ask from a browser."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import time
import zlib
from pathlib import Path

import httptools
import uvicorn
from click.testing import CliRunner
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from packages import ROOT
from server.conftest import Serve, Server
from trimexport_runtime.cli import main
from trimexport_runtime.server.protocol import protocol

ASKED = {"texts": ["dull"]}
BODY = json.dumps(ASKED).encode()
GZIP = gzip.compress(BODY)
PAGE = "https://a.example"


def _raw(server: Server, *parts: bytes) -> bytes:
    """All that the server sends on a connection on which it gets `parts`, until it closes that."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.02)  # so that they are read one by one
        found = b""
        while part := connection.recv(65536):
            found += part
    return found


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers nothing."""


def _post(headers: bytes) -> bytes:
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n"
    return head % (len(BODY), headers) + BODY


def test_compressed_bodies(serve: Serve, bundle: Path) -> None:
    server = serve(bundle)
    expected = server.ask("POST", "/classify", ASKED)[1]
    for coding, body in (
        ("gzip", GZIP),
        ("x-GZIP", GZIP),
        ("identity, gzip", GZIP),
        ("deflate", zlib.compress(BODY)),
        ("identity", BODY),
        ("", BODY),
    ):
        status, answer, _ = server.ask("POST", "/classify", body, {"Content-Encoding": coding})
        assert (status, answer) == (200, expected), coding
    raw = struct.pack("<I", 4) + b"dull"
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1]}
    asked = {"inputs": [tensor | {"parameters": {"binary_data_size": len(raw)}}]}
    head = json.dumps(asked).encode()
    headers = {"Content-Encoding": "gzip", "Inference-Header-Content-Length": str(len(head))}
    path = f"/v2/models/{server.name}/infer"
    status, answer, _ = server.ask("POST", path, gzip.compress(head + raw), headers)
    assert (status, answer["outputs"][0]["data"]) == (200, ["negative"])


def test_compressed_bodies_that_are_refused(serve: Serve, bundle: Path) -> None:
    server = serve(bundle, "--max-body", 10_000)
    bomb = gzip.compress(b" " * 2_000_000)
    assert len(bomb) < 10_000
    checksum = bytes([GZIP[-8] ^ 1])
    for coding, body, status, kind, said in (
        ("gzip", bomb, 413, "body_too_large", "decompressed, the body has more than 10000 bytes"),
        ("gzip", gzip.compress(b" " * 10_001), 413, "body_too_large", "more than 10000 bytes"),
        ("gzip", gzip.compress(b" " * 10_000), 400, "bad_json", "not JSON"),
        ("gzip", BODY, 400, "bad_compression", "the body is not gzip"),
        ("gzip", b"", 400, "bad_compression", "the end of the gzip body is missing; send"),
        ("gzip", GZIP[:-1], 400, "bad_compression", "the end of the gzip body is missing; send"),
        ("gzip", GZIP[:-8] + checksum + GZIP[-7:], 400, "bad_compression", "incorrect data check"),
        ("gzip", GZIP * 2, 400, "bad_compression", f"{len(GZIP)} bytes stand behind the end"),
        ("deflate", GZIP, 400, "bad_compression", "the body is not deflate"),
        ("br", BODY, 415, "bad_encoding", "Content-Encoding is br; send one of gzip, deflate"),
        ("gzip, gzip", GZIP, 415, "bad_encoding", "Content-Encoding is gzip, gzip; send one of"),
    ):
        found, answer, headers = server.ask("POST", "/classify", body, {"Content-Encoding": coding})
        assert (found, answer["error_type"]) == (status, kind), (coding, body[:40])
        assert said in answer["error"]
        assert (headers.get("accept-encoding") == "gzip, deflate") == (status == 415)
    chunked = (
        b"POST /classify HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n"
    )
    answer = _raw(server, chunked + b"1\r\na\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 415 ")
    assert b"Transfer-Encoding is gzip, chunked; send chunked" in answer


def test_an_offer_of_another_protocol_is_declined(serve: Serve, bundle: Path) -> None:
    """Java's client makes one with the first request of a connection, whatever its method."""
    server = serve(bundle)
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    socket_offer = b"Connection: upgrade\r\nUpgrade: websocket\r\n"
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    chunked = (
        b"POST /classify HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + offer + b"\r\n" + chunks
    )
    sent = [_post(offer), chunked, _post(socket_offer), _post(b"Connection: close\r\n")]
    together = b"".join(sent)
    head = together.index(BODY)
    for parts in ([together], [together[:head], together[head:]], [together[:80], together[80:]]):
        answers = _raw(server, *parts)
        assert answers.count(b"HTTP/1.1 200 OK\r\n") == len(sent)
        assert answers.count(b'"label":"negative"') == len(sent)
    assert _raw(server, b"CONNECT x:80 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_what_is_no_body_is_bounded(serve: Serve, bundle: Path) -> None:
    """Headers, or the trailers behind a body in chunks, without an end."""
    server = serve(bundle)
    line = b"x: " + b"y" * 1000 + b"\r\n"
    chunks = b"POST /classify HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    for head in (b"GET /health HTTP/1.1\r\n", b"GET /health HTTP/1.1\r\nx:", chunks):
        answer = b""
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(head)
            try:
                for _ in range(50_000):
                    connection.sendall(line if head[-2:] == b"\r\n" else b"y" * 1000)
                raise AssertionError("50 MB of headers were read")
            except ConnectionError:
                pass
            try:
                answer = connection.recv(65536)
            except ConnectionError:
                continue
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"the headers have more than 65536 bytes" in answer
    assert server.ask("GET", "/health")[0] == 200
    text = server.ask("GET", "/metrics")[1].decode()
    assert 'trimexport_errors_total{kind="bad_http"} 3.0' in text
    _, lines = server.stop()
    assert sum("headers have more than" in line.get("message", "") for line in lines) == 3


def test_keys_and_schemes(serve: Serve, bundle: Path, tmp_path: Path) -> None:
    """Clients send a letter beyond ASCII in UTF-8 or in Latin-1, and the scheme as they like."""
    (tmp_path / "key").write_bytes("\ufeffschlüssel\r\n".encode())  # as Windows' editor saves it
    server = serve(bundle, "--api-key-file", tmp_path / "key")
    for given, status in (
        ("Bearer schlüssel".encode(), 200),
        ("Bearer schlüssel".encode("latin-1"), 200),
        ("bearer schlüssel".encode(), 200),
        ("BEARER   schlüssel".encode(), 200),
        (b"Bearer schlussel", 401),
        ("Bearerschlüssel".encode(), 401),
        ("Basic schlüssel".encode(), 401),
        ("Bearer schlüssel schlüssel".encode(), 401),
        (b"Bearer", 401),
        (b"\xff\xfe", 401),
    ):
        answer = _raw(server, _post(b"Connection: close\r\nAuthorization: %s\r\n" % given))
        assert answer.startswith(b"HTTP/1.1 %d " % status), given
    server = serve(bundle, "--api-key", "ключ")
    for given, status in (("Bearer ключ".encode(), 200), ("Bearer ключ".encode("koi8-r"), 401)):
        answer = _raw(server, _post(b"Connection: close\r\nAuthorization: %s\r\n" % given))
        assert answer.startswith(b"HTTP/1.1 %d " % status), given


def test_keys_that_no_client_can_send(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("one\ntwo\n")
    for options, said in (
        (["--api-key", ""], "--api-key is empty; write the key into it"),
        (["--api-key", " k"], "--api-key has a line break, a control character or a blank at an"),
        (["--api-key", "a\x7f"], "--api-key has a line break, a control character or a blank"),
        (["--api-key-file", str(file)], f"the key file {file} has a line break, a control"),
    ):
        result = CliRunner().invoke(main, ["serve", str(bundle), *options])
        assert result.exit_code == 1
        assert said in result.stderr


def test_pages_of_other_origins(serve: Serve, bundle: Path) -> None:
    """A page reads every answer, a refusal too, if its origin may ask, and else none."""
    other = "http://localhost:3000"
    options = ("--cors-origin", PAGE.upper() + ":443", "--cors-origin", other, "--api-key", "k")
    server = serve(bundle, *options)
    key = {"Authorization": "Bearer k"}
    long = {"texts": ["dull"] * 1025}
    for origin in (PAGE, other):
        for method, path, body, headers, status in (
            ("GET", "/health", None, {}, 200),
            ("POST", "/classify", ASKED, key, 200),
            ("POST", "/classify", ASKED, {}, 401),
            ("POST", "/classify", b"{", key, 400),
            ("POST", "/classify", long, key, 422),
            ("GET", "/nowhere", None, key, 404),
        ):
            found, _, answered = server.ask(method, path, body, headers | {"Origin": origin})
            assert found == status
            assert answered["access-control-allow-origin"] == origin
            assert answered["vary"] == "Origin"
            assert "Retry-After" in answered["access-control-expose-headers"]
        status, content, answered = server.ask(
            "OPTIONS",
            "/classify",
            None,
            {"Origin": origin, "Access-Control-Request-Method": "POST"},
        )
        assert (status, content) == (204, b"")
        assert answered["access-control-allow-origin"] == origin
        assert answered["access-control-allow-methods"] == "GET, POST"
        assert {"Authorization", "Content-Type"} <= set(
            answered["access-control-allow-headers"].split(", ")
        )
    for stranger in ({"Origin": "https://b.example"}, {"Origin": "null"}, {}):
        for method, status in (("POST", 200), ("OPTIONS", 405)):
            headers = key | stranger | {"Access-Control-Request-Method": "POST"}
            found, _, answered = server.ask(method, "/classify", ASKED, headers)
            assert found == status
            assert "access-control-allow-origin" not in answered
            assert answered["vary"] == "Origin"


def test_no_page_or_every_page(serve: Serve, bundle: Path) -> None:
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    server = serve(bundle)
    status, _, answered = server.ask("OPTIONS", "/classify", None, asks)
    assert (status, answered["allow"]) == (405, "POST")
    assert not {name for name in answered if name.startswith("access-control") or name == "vary"}
    server = serve(bundle, TRIMEXPORT_CORS_ORIGIN="*")
    assert server.ask("OPTIONS", "/classify", None, asks)[0] == 204
    _, _, answered = server.ask("POST", "/classify", ASKED, {"Origin": PAGE})
    assert answered["access-control-allow-origin"] == "*"


def test_what_is_no_origin(bundle: Path) -> None:
    for given in (
        f"{PAGE}/",
        "a.example",
        "null",
        "http://",
        f"{PAGE}:x",
        f"{PAGE},{PAGE}",
        "http://ä.de",
        "",
    ):
        result = CliRunner().invoke(main, ["serve", str(bundle), "--cors-origin", given])
        assert result.exit_code == 2, given
        assert f"{given!r} is no origin; give its scheme, its host" in " ".join(
            result.stderr.split()
        )


def test_what_is_used_of_uvicorn_is_there() -> None:
    """The private names that the protocol's docstring lists; pyproject.toml bounds the version."""
    kind = protocol(1, lambda: None)
    config = uvicorn.Config(_nothing, http=kind, lifespan="off", ws="none", log_config=None)
    config.load()
    made = kind(config, ServerState(), {}, _loop=asyncio.new_event_loop())
    made.on_message_begin()
    names = "parser headers url cycle pipeline flow loop transport _unset_keepalive_if_required"
    assert not [name for name in names.split() if not hasattr(made, name)]
    assert isinstance(made.parser, httptools.HttpRequestParser)
    made.loop.close()
    server = uvicorn.Server(config)
    names = "startup main_loop shutdown server_state"
    assert not [name for name in names.split() if not hasattr(server, name)]
    bound = (ROOT / "runtime" / "pyproject.toml").read_text(encoding="utf-8")
    assert '"uvicorn>=0.30,<0.55",' in bound
