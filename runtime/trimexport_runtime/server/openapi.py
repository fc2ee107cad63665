"""The description of the server's routes, and a page of it: https://spec.openapis.org/oas/v3.1.0"""

from __future__ import annotations

from typing import Any

from .refusals import STATUS

_ERROR = {
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {"error": {"type": "string"}, "error_type": {"type": "string"}},
}
_TEXTS = {
    "type": "object",
    "required": ["texts"],
    "properties": {
        "texts": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "truncate": {"type": "boolean", "default": False},
    },
}
_PREDICT = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "inputs": {
            "oneOf": [
                {"type": "string"},
                {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "array",
                        "items": {"type": "string"},
                        "minItems": 1,
                        "maxItems": 1,
                    },
                },
            ]
        },
        "raw_scores": {"type": "boolean", "default": False},
        "truncate": {"type": "boolean", "default": False},
    },
}
_INFER = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "datatype", "shape", "data"],
                "properties": {
                    "name": {"const": "text"},
                    "datatype": {"const": "BYTES"},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                    "data": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"enum": ["label", "probabilities"]}},
            },
        },
    },
}
_ROUTES: tuple[tuple[str, str, str, dict[str, Any] | None], ...] = (
    ("post", "/predict", "Classify, as text-embeddings-inference does.", _PREDICT),
    ("post", "/classify", "Classify texts.", _TEXTS),
    ("get", "/health", "Whether the server takes requests.", None),
    ("get", "/info", "What is served, and within which limits.", None),
    ("get", "/metrics", "Counters and histograms for Prometheus.", None),
    ("get", "/v2", "The server, in the Open Inference Protocol.", None),
    ("get", "/v2/health/live", "Whether the server lives.", None),
    ("get", "/v2/health/ready", "Whether the server takes requests.", None),
    ("get", "/v2/models/{name}", "A model's inputs and outputs.", None),
    ("get", "/v2/models/{name}/ready", "Whether a model takes requests.", None),
    ("post", "/v2/models/{name}/infer", "Classify, in the Open Inference Protocol.", _INFER),
)


def description(version: str) -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, summary, body in _ROUTES:
        paths.setdefault(path, {})[method] = _operation(path, summary, body)
    return {
        "openapi": "3.1.0",
        "info": {"title": "trimexport", "version": version},
        "paths": paths,
    }


def _operation(path: str, summary: str, body: dict[str, Any] | None) -> dict[str, Any]:
    refused = {"description": "Refused", "content": {"application/json": {"schema": _ERROR}}}
    found: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "Answered"},
            **{str(status): refused for status in sorted(set(STATUS.values()) - {500})},
        },
    }
    if body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    if "{name}" in path:
        found["parameters"] = [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    return found


_ROWS = "".join(
    f"<tr><td>{method.upper()}</td><td><code>{path}</code></td><td>{summary}</td></tr>"
    for method, path, summary, _ in _ROUTES
)
PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>trimexport</title>
<style>body {{ font: 16px/1.5 system-ui; margin: 2rem }} td {{ padding: .2rem 1rem }}</style>
</head><body><h1>trimexport</h1><table>{_ROWS}</table>
<p><a href="openapi.json">openapi.json</a></p></body></html>
"""
