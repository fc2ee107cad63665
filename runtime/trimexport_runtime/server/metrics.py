"""The metrics of a server, for Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
STAGES = ("tokenise", "queue", "model", "total")


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self.requests = Counter(
            "trimexport_requests", "Requests answered.", ["route", "status"], registry=own
        )
        self.errors = Counter(
            "trimexport_errors",
            "Requests that were refused, or failed, by kind.",
            ["kind"],
            registry=own,
        )
        self.texts = Counter("trimexport_texts", "Texts classified.", ["model"], registry=own)
        self.queue = Gauge("trimexport_queue_tokens", "Tokens that wait.", ["model"], registry=own)
        self.rows = Histogram(
            "trimexport_batch_rows", "Texts in a batch.", ["model"], buckets=_COUNTS, registry=own
        )
        self.tokens = Histogram(
            "trimexport_batch_tokens",
            "Tokens of a batch, padding included.",
            ["model"],
            buckets=_COUNTS,
            registry=own,
        )
        taken = Histogram(
            "trimexport_request_seconds",
            f"Seconds of a request by stage: {', '.join(STAGES)}.",
            ["stage"],
            buckets=_SECONDS,
            registry=own,
        )
        self._stages = {name: taken.labels(name) for name in STAGES}

    def note(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self.requests.labels(route, str(status)).inc()
        self.stage("total", seconds)

    def note_bad(self) -> None:
        """Count a request that was not HTTP."""
        self.errors.labels("bad_http").inc()
        self.requests.labels("none", "400").inc()

    def stage(self, name: str, seconds: float) -> None:
        """Note how long a stage of a request took."""
        self._stages[name].observe(seconds)

    def watch_queue(self, model: str, tokens: Callable[[], int]) -> None:
        """Have the length of a model's queue read whenever the metrics are."""
        self.queue.labels(model).set_function(tokens)

    def forget(self, model: str) -> None:
        """Drop what is counted of a model that is served no more."""
        for metric in (self.texts, self.queue, self.rows, self.tokens):
            with contextlib.suppress(KeyError):  # nothing was counted
                metric.remove(model)

    def text(self) -> bytes:
        """All metrics, in the text format of Prometheus."""
        return generate_latest(self._registry)
