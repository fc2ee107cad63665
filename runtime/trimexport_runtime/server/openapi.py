"""The description of the server's routes, and a page of it: https://spec.openapis.org/oas/v3.1.0"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .refusals import STATUS
from .routes import Route


def description(routes: Sequence[Route], version: str, models: Sequence[str]) -> dict[str, Any]:
    """The OpenAPI document of a server with these routes and models."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.described:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, models)
    return {
        "openapi": "3.1.0",
        "info": {"title": "trimexport", "version": version},
        "paths": paths,
    }


def page(routes: Sequence[Route]) -> str:
    """The HTML page that lists the routes."""
    rows = "".join(
        f"<tr><td>{route.method}</td><td><code>{route.path}</code></td><td>{route.summary}</td></tr>"
        for route in routes
        if route.described
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>trimexport</title>
<style>body {{ font: 16px/1.5 system-ui; margin: 2rem }} td {{ padding: .2rem 1rem }}</style>
</head><body><h1>trimexport</h1><table>{rows}</table>
<p><a href="openapi.json">openapi.json</a></p></body></html>
"""


def _operation(route: Route, models: Sequence[str]) -> dict[str, Any]:
    schema = route.dialect.schema
    refused = {"description": "Refused", "content": {"application/json": {"schema": schema}}}
    statuses = {route.dialect.status(kind) for kind in STATUS} - {500}
    answered: dict[str, Any] = {"description": "Answered"}
    if route.answer is not None:
        answered["content"] = {"application/json": {"schema": route.answer}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "responses": {
            "200": answered,
            **{str(status): refused for status in sorted(statuses)},
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": route.body}},
        }
    named = {"schema": {"type": "string", "enum": list(models)}}
    if "{name}" in route.path:
        operation["parameters"] = [{"name": "name", "in": "path", "required": True, **named}]
    elif route.body is not None:
        operation["parameters"] = [{"name": "model", "in": "query", "required": False, **named}]
    return operation
