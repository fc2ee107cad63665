"""Which handler answers a method and a path. A dictionary where the path has no parameter: at
thousands of requests a second on small models, finding the handler is a part of the work."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from .refusals import Refusal

Handler = Callable[[Request], Awaitable[Response]]


class Routes:
    """A table of methods, paths and handlers; `{name}` in a path is a parameter."""

    def __init__(self, table: Sequence[tuple[str, str, Handler]]) -> None:
        self._methods: dict[str, dict[str, Handler]] = {}
        for method, path, handler in table:
            methods = self._methods.setdefault(path, {})
            methods[method] = handler
            if method == "GET":
                methods["HEAD"] = handler
        self._patterns = [
            (re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))), path)
            for path in self._methods
            if "{" in path
        ]

    def find(self, method: str, path: str) -> tuple[str, Handler, dict[str, str]]:
        """The route's path as in the table, its handler, and the parameters.

        Raises:
            Refusal: no such path, or it does not take the method.
        """
        route, parameters = self._route(path)
        methods = self._methods[route]
        if method not in methods:
            allowed = ", ".join(sorted(methods))
            refusal = Refusal("bad_method", f"{path} takes {allowed}")
            refusal.headers["Allow"] = allowed
            raise refusal
        return route, methods[method], parameters

    def _route(self, path: str) -> tuple[str, dict[str, str]]:
        if path in self._methods and "{" not in path:
            return path, {}
        for pattern, route in self._patterns:
            if found := pattern.fullmatch(path):
                return route, found.groupdict()
        raise Refusal("no_route", f"no such path; there are: {', '.join(sorted(self._methods))}")
