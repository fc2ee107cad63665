"""A server's routes: what each is for, and which of them a request asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.routing import Route as Matcher
from starlette.types import Scope

from .dialects import OWN, Dialect
from .refusals import Refusal
from .schemas import Schema

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """A method and a path, and what answers them.

    Args:
        path: `{name}` in it is a parameter.
        summary: a sentence on what the route is for.
        body: the schema of the JSON that it takes; None if it takes none.
        answer: the schema of the JSON that it answers with; None if that is no JSON.
        described: whether the OpenAPI description and its page have it.
        dialect: how refusals are worded.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: Schema | None = None
    answer: Schema | None = None
    described: bool = True
    dialect: Dialect = OWN


class Router:
    """Finds the route of a request by Starlette's rules, and refuses what has none."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._matchers = [
            (route, Matcher(route.path, route.handler, methods=[route.method])) for route in routes
        ]

    def find(self, scope: Scope) -> tuple[Route, dict[str, str]]:
        """The route of a request, and the values of its path's parameters.

        Raises:
            Refusal: no route has the path, or none of those takes the method.
        """
        allowed: set[str] = set()
        for route, matcher in self._matchers:
            match, matched = matcher.matches(scope)
            if match is Match.FULL:
                return route, matched["path_params"]
            if match is Match.PARTIAL:
                allowed |= matcher.methods or set()
        if allowed:
            methods = ", ".join(sorted(allowed))
            refusal = Refusal("bad_method", f"{scope['path']} takes {methods}")
            refusal.headers["Allow"] = methods
            raise refusal
        paths = sorted({route.path for route, _ in self._matchers})
        raise Refusal("no_route", f"no such path; there are: {', '.join(paths)}")
