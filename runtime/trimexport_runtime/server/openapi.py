"""The description of the server's routes, and a page of it: https://spec.openapis.org/oas/v3.1.0"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .refusals import STATUS
from .schemas import (
    CLASSIFIED,
    ERROR,
    INFER,
    INFERRED,
    OBJECT,
    PREDICT,
    PREDICTED,
    TEXTS,
    Schema,
)

_ROUTES: tuple[tuple[str, str, str, Schema | None, Schema | None], ...] = (
    ("post", "/predict", "Classify, as text-embeddings-inference does.", PREDICT, PREDICTED),
    ("post", "/classify", "Classify texts.", TEXTS, CLASSIFIED),
    ("get", "/health", "Whether the server takes requests.", None, OBJECT),
    ("get", "/info", "What is served, and within which limits.", None, OBJECT),
    ("get", "/metrics", "Counters and histograms for Prometheus.", None, None),
    ("get", "/v2", "The server, in the Open Inference Protocol.", None, OBJECT),
    ("get", "/v2/health/live", "Whether the server lives.", None, OBJECT),
    ("get", "/v2/health/ready", "Whether the server takes requests.", None, OBJECT),
    ("get", "/v2/models/{name}", "A model's inputs and outputs.", None, OBJECT),
    ("get", "/v2/models/{name}/ready", "Whether a model takes requests.", None, OBJECT),
    ("post", "/v2/models/{name}/infer", "Classify, in that protocol.", INFER, INFERRED),
)
"""Method, path, what it is for, the body that it takes and the JSON that it answers with."""


def description(version: str, models: Sequence[str]) -> dict[str, Any]:
    """The OpenAPI document of a server with these models."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, summary, body, answer in _ROUTES:
        paths.setdefault(path, {})[method] = _operation(path, summary, body, answer, models)
    return {
        "openapi": "3.1.0",
        "info": {"title": "trimexport", "version": version},
        "paths": paths,
    }


def _operation(
    path: str, summary: str, body: Schema | None, answer: Schema | None, models: Sequence[str]
) -> dict[str, Any]:
    refused = {"description": "Refused", "content": {"application/json": {"schema": ERROR}}}
    answered: dict[str, Any] = {"description": "Answered"}
    if answer is not None:
        answered["content"] = {"application/json": {"schema": answer}}
    found: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": answered,
            **{str(status): refused for status in sorted(set(STATUS.values()) - {500})},
        },
    }
    if body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    named = {"schema": {"type": "string", "enum": list(models)}}
    if "{name}" in path:
        found["parameters"] = [{"name": "name", "in": "path", "required": True, **named}]
    elif body is not None:
        found["parameters"] = [{"name": "model", "in": "query", "required": False, **named}]
    return found


_ROWS = "".join(
    f"<tr><td>{method.upper()}</td><td><code>{path}</code></td><td>{summary}</td></tr>"
    for method, path, summary, _, _ in _ROUTES
)
PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>trimexport</title>
<style>body {{ font: 16px/1.5 system-ui; margin: 2rem }} td {{ padding: .2rem 1rem }}</style>
</head><body><h1>trimexport</h1><table>{_ROWS}</table>
<p><a href="openapi.json">openapi.json</a></p></body></html>
"""
