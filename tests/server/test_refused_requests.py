"""What is refused, in one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from server.conftest import Serve

LONG = "word " * 700
TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}
INFER: dict[str, Any] = {"inputs": [TENSOR]}
DEEP = b"[" * 900 + b"]" * 900
ODD_TENSORS: list[dict[str, Any]] = [
    {"shape": "\ud800"},
    {"shape": [True]},
    {"shape": [1.0]},
    {"shape": [1, 1, 1]},
    {"data": None},
    {"data": [1]},
    {"data": "a"},
    {"datatype": "FP32"},
    {"parameters": []},
    {"parameters": {"binary_data_size": 1}},
    {"parameters": {"binary_data_size": False}},
    {"parameters": {"binary_data_size": 0}},
    {"parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 9}},
]
ODD_INFER: list[dict[str, Any]] = [
    {"id": "\ud800"},
    {"id": 1},
    {"inputs": []},
    {"inputs": 1},
    {"inputs": [TENSOR, TENSOR]},
    *({"inputs": [TENSOR | odd]} for odd in ODD_TENSORS),
    {"parameters": 0},
    {"parameters": {"truncate": "true"}},
    {"parameters": {"binary_data_output": "false"}},
    {"outputs": {}},
    {"outputs": [{"name": "logits"}]},
    {"outputs": [{"name": "label", "parameters": {"binary_data": 0}}]},
    {"outputs": [{"name": "label", "parameters": {"classification": 1}}]},
    {"outputs": [{"name": "label", "parameters": {"shared_memory_region": "r"}}]},
]
REFUSED: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/classify", b"{", 400, "bad_json"),
    ("POST", "/classify", b"\xff", 400, "bad_json"),
    ("POST", "/classify", b"[" * 9_000, 400, "bad_json"),
    ("POST", "/classify", [], 422, "bad_input"),
    ("POST", "/classify", {"texts": []}, 422, "bad_input"),
    ("POST", "/classify", {"texts": "a text"}, 422, "bad_input"),
    ("POST", "/classify", {"texts": [1]}, 422, "bad_input"),
    ("POST", "/classify", {"texts": ["a"], "truncate": 1}, 422, "bad_input"),
    ("POST", "/classify", {"texts": ["\ud800"]}, 422, "bad_input"),
    ("POST", "/classify", {"texts": ["a"], "model": "none"}, 422, "bad_input"),
    ("POST", "/classify", b'{"texts": ["a"], "texts": ["b"]}', 400, "bad_json"),
    ("POST", "/classify", b'{"texts": ["a"], "truncate": NaN}', 400, "bad_json"),
    ("POST", "/classify", b'{"texts": ["a"], "truncate": -Infinity}', 400, "bad_json"),
    ("POST", "/classify", b'{"texts": ["a"], "truncate": %s}' % (b"9" * 5000), 400, "bad_json"),
    ("POST", "/classify", b'{"texts": ["a"], "truncate": %s}' % DEEP, 422, "bad_input"),
    ("POST", "/classify?modle=bundle", {"texts": ["a"]}, 422, "bad_input"),
    ("POST", "/classify?model=bundle&model=none", {"texts": ["a"]}, 422, "bad_input"),
    ("POST", "/predict?models=bundle", {"inputs": "a"}, 422, "bad_input"),
    ("POST", "/classify", {"texts": ["a"] * 9}, 422, "too_many_texts"),
    ("POST", "/classify", {"texts": ["a", LONG]}, 413, "text_too_long"),
    ("POST", "/classify", {"texts": ["a" * 20_000]}, 413, "body_too_large"),
    *(("POST", "/v2/models/bundle/infer", INFER | odd, 422, "bad_input") for odd in ODD_INFER),
    ("POST", "/predict", {"inputs": ["a", "b"]}, 422, "bad_input"),
    ("POST", "/predict", {"inputs": [["a", "b"]]}, 422, "bad_input"),
    ("POST", "/predict", {"inputs": []}, 422, "bad_input"),
    ("POST", "/predict", {"texts": ["a"]}, 422, "bad_input"),
    ("POST", "/v2/models/none/infer", {"inputs": []}, 404, "no_model"),
    ("GET", "/nowhere", None, 404, "no_route"),
    ("PUT", "/classify", {"texts": ["a"]}, 405, "bad_method"),
    ("GET", "/predict", None, 405, "bad_method"),
]


def test_what_is_refused(serve: Serve, bundle: Path) -> None:
    """Each with its status and a JSON error; the server answers the next request."""
    server = serve(f"bundle={bundle}", "--max-texts", 8, "--max-body", 10_000)
    for method, path, body, status, kind in REFUSED:
        found, answer, headers = server.ask(method, path, body)
        assert (found, answer["error_type"]) == (status, kind), (method, path, answer)
        assert 0 < len(answer["error"]) < 1000
        assert ("allow" in headers) == (status == 405)
    head = json.dumps(INFER).encode()
    for size, tail in (("x", b""), ("-1", b""), ("9" * 5000, b""), (str(len(head)), b"more")):
        headers = {"Inference-Header-Content-Length": size}
        found, answer, _ = server.ask("POST", "/v2/models/bundle/infer", head + tail, headers)
        assert (found, answer["error_type"]) == (422, "bad_input"), answer
    assert server.ask("POST", "/classify", {"texts": ["a"]})[0] == 200
