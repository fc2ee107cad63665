"""Requests that no client means: each is answered as docs/server.md has it, and none by a 500, a
hang or a line in the log that is no JSON.

TRIMEXPORT_FUZZ is how many of each kind are sent.
"""

from __future__ import annotations

import copy
import gzip
import http.client
import json
import socket
import zlib
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mutations import EXAMPLES, places
from server.conftest import Serve, Server
from trimexport_runtime.server.refusals import STATUS

TENSOR = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}
VALID: list[tuple[str, dict[str, Any]]] = [
    ("/classify", {"texts": ["a film", "dull"], "truncate": True}),
    ("/predict", {"inputs": "dull", "raw_scores": True, "truncation_direction": "right"}),
    ("/predict", {"inputs": [["a film"], ["dull"]], "truncate": None}),
    (
        "/v2/models/b/infer",
        {
            "id": "1",
            "inputs": [TENSOR],
            "outputs": [{"name": "label", "parameters": {"binary_data": True}}],
            "parameters": {"truncate": False, "binary_data_output": True},
        },
    ),
    ("/classify?model=p", {"texts": [["a film", "dull"], {"query": "a", "document": "b"}]}),
    ("/predict?model=p", {"inputs": [["a film", "dull"]]}),
    (
        "/v2/models/p/infer",
        {"inputs": [TENSOR | {"name": "query"}, TENSOR | {"name": "document"}]},
    ),
    ("/rerank?model=p", {"query": "who", "texts": ["Ann", ""], "return_text": True}),
    ("/v1/rerank", {"model": "p", "query": "who", "documents": ["Ann", {"text": "Bo"}]}),
    ("/v2/rerank?model=p", {"query": "who", "documents": ["Ann", "Bo"], "top_n": 1}),
    ("/score", {"model": "p", "queries": "who", "documents": ["Ann"], "instruction": "find"}),
    ("/v1/score?model=p", {"text_1": ["who", "when"], "text_2": ["Ann", "May"]}),
    ("/v1/moderations", {"input": ["dull"], "truncate": True}),
    ("/v1/moderations", {"input": [{"type": "text", "text": "dull"}]}),
]
PATHS = (
    "/", "*", "/health", "/info", "/metrics", "/docs", "/openapi.json", "/v2", "/v2/models/b",
    "/v2/models/b/versions/1/infer", "/v2/models/%62/ready", "/v2/models/%ff%00/infer",
    "/v2/models/%2e%2e%2finfer", "//classify", "/classify/", "/classify?model=%f0", "/predict?a=1",
    "http://x/classify", "/classify#b", "/%63lassify", "/v2/models/" + "b" * 3000,
)  # fmt: skip
HEADERS = (
    "Content-Encoding: gzip", "Content-Encoding: deflate", "Content-Encoding: br, gzip",
    "Content-Encoding: \xff", "Inference-Header-Content-Length: 0", "Expect: 100-continue",
    "Inference-Header-Content-Length: 20", "Inference-Header-Content-Length: \xb2",
    "Content-Type: application/octet-stream", "Content-Type: ", "Accept: image/png",
    "Authorization: Bearer k", "Authorization: bearer  k", "Authorization: Bearer \xff\xfe",
    "Authorization: ", "Origin: https://a.example", "Origin: null", "Origin: \xfc",
    "Access-Control-Request-Method: POST", "Connection: close", "Connection: keep-alive, x",
    "Connection: Upgrade\r\nUpgrade: h2c", "Connection: upgrade\r\nUpgrade: websocket",
    "Accept-Encoding: gzip;q=0", "Range: bytes=0-1", "X: " + "y" * 5000,
)  # fmt: skip
ODD = ("\ud800", "a" * 5000, "text", "BYTES", "label", "left", "truncate", "binary_data_size", "")
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(ODD)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.sampled_from(ODD[2:]), inner, max_size=3)
    ),
    max_leaves=6,
)
RARELY = st.sampled_from((False,) * 5 + (True,))
PACKED = {"gzip": gzip.compress, "deflate": zlib.compress, "": lambda raw: raw}


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path, and a body that was right for it until some of it was replaced."""
    path, valid = draw(st.sampled_from(VALID))
    value = copy.deepcopy(valid)
    for _ in range(draw(st.sampled_from((1, 1, 1, 0, 2)))):
        if found := places(value):
            container, key = draw(st.sampled_from(found))
            container[key] = draw(VALUES)
    if draw(RARELY):
        value[draw(st.sampled_from(ODD) | st.text(max_size=5))] = draw(VALUES)
    raw = json.dumps(value).encode()
    if draw(RARELY):
        cut = draw(st.integers(0, len(raw)))
        raw = raw[:cut] + draw(st.binary(max_size=6)) + raw[cut + draw(st.integers(0, 3)) :]
    return path, raw


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes]:
    """A method, and a whole request of that method."""
    path, body = draw(bodies())
    method = "POST"
    if draw(RARELY):
        path = draw(st.sampled_from(PATHS))
        method = draw(st.sampled_from(("POST", "GET", "HEAD", "OPTIONS", "PUT", "TRACE")))
    lines = draw(st.lists(st.sampled_from(HEADERS), max_size=3, unique=True))
    if draw(RARELY):
        coding = draw(st.sampled_from(sorted(PACKED)))
        body = PACKED[coding](body)
        lines = [
            *(line for line in lines if "-Encoding" not in line),
            f"Content-Encoding: {coding}",
        ]
    if draw(RARELY):
        cut = draw(st.integers(0, len(body)))
        parts = [part for part in (body[:cut], body[cut:]) if part]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {len(body)}")
    version = draw(st.sampled_from(("1.1", "1.1", "1.0")))
    head = "\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", *lines, "", ""])
    return method, head.encode("latin-1") + body


def _strict(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def _said(refusal: dict[str, Any]) -> str:
    """The sentence of a refusal, wherever its dialect has it."""
    error = refusal.get("error", refusal)
    return str(error if isinstance(error, str) else error["message"])


def _check(method: str, answer: http.client.HTTPResponse) -> None:
    """An answer has a status that is promised, and what the status promises."""
    content = answer.read()
    if answer.status == 204 or method == "HEAD":
        assert content == b""
    elif answer.status == 200:
        size = int(answer.getheader("Inference-Header-Content-Length") or len(content))
        if (answer.getheader("Content-Type") or "").startswith("application/"):
            json.loads(content[:size], parse_constant=_strict)
    else:
        refusal = json.loads(content)
        assert answer.status in set(STATUS.values()) - {500}, refusal
        assert STATUS.get(refusal.get("error_type"), answer.status) == answer.status
        assert 0 < len(_said(refusal)) < 5000


def _end(server: Server) -> None:
    """The server still answers, and its log is JSON without an error."""
    assert (
        server.ask("POST", "/classify", {"texts": ["a"]}, {"Authorization": "Bearer k"})[0] == 200
    )
    code, lines = server.stop()
    assert code == 0
    assert not [line for line in lines if line.get("level") == "error" or line.get("status") == 500]


def test_requests(serve: Serve, bundle: Path, pairs: Path) -> None:
    options = ("--cors-origin", "https://a.example", "--max-body", 9000)
    server = serve(f"b={bundle}", f"p={pairs}", *options)

    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(requests())
    def ask(request: tuple[str, bytes]) -> None:
        method, raw = request
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(raw)
            answer = http.client.HTTPResponse(connection, method=method)
            answer.begin()
            _check(method, answer)

    ask()
    _end(server)


def test_bytes(serve: Serve, bundle: Path) -> None:
    """Requests of which some bytes are others: the connection ends, after answers if there are."""
    server = serve(f"b={bundle}", "--api-key", "k")
    noise = st.binary(max_size=4) | st.sampled_from((b"\r\n", b"\r\n\r\n", b":", b" ", b"\0"))

    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(requests(), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), noise), max_size=4))
    def send(request: tuple[str, bytes], edits: list[tuple[float, int, bytes]]) -> None:
        raw = request[1]
        for share, lost, new in edits:
            place = int(share * len(raw))
            raw = raw[:place] + new + raw[place + lost :]
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            found = b""
            try:
                while part := connection.recv(65536):
                    found += part
            except ConnectionResetError:  # it closed while bytes were on their way
                pass
        assert found == b"" or found.startswith(b"HTTP/1.1 ")
        assert b"HTTP/1.1 5" not in found

    send()
    _end(server)
