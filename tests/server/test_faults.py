"""The fault benchmark in small: each accepted request gets its own answer, whatever else comes, and
after SIGTERM too. And what no request should cause: it fails that request alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from packages import ROOT
from trimexport_runtime import Classifier
from trimexport_runtime.server.app import App
from trimexport_runtime.server.service import Service
from trimexport_runtime.server.settings import Settings


class Panic(BaseException):
    """As a library in Rust raises one: no Exception."""


def test_a_mixed_load(bundle: Path) -> None:
    texts = ROOT / "docs" / "examples" / "reviews.csv"
    options = ["--requests", "1500", "--seconds", "0", "--clients", "50"]
    found = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "faults.py", bundle, texts, *options],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "SIGTERM in the middle" in found.stdout


async def _asked(app: App) -> tuple[int, Any]:
    """Status and JSON of the answer to a text, asked of the application itself."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b'{"texts": ["dull"]}', "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/classify",
        "query_string": b"",
        "headers": [],
    }
    await app(scope, receive, send)
    start, body = sent
    return start["status"], json.loads(body["body"])


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("encode", RuntimeError),
        ("encode", Panic),
        ("most_rows", RuntimeError),
        ("most_rows", Panic),
        ("run", MemoryError),
        ("run", SystemExit),
        ("run", Panic),
        ("predictions", RuntimeError),
    ],
)
def test_whatever_fails_in_the_service(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, method: str, error: type[BaseException]
) -> None:
    """The request is answered, counted and logged as failed, and the next one is answered."""

    def fail(*_: object, **__: object) -> None:
        raise error("on purpose")

    lines: list[dict[str, Any]] = []
    classifier = Classifier.load(bundle)
    service = Service({"b": classifier}, Settings())
    app = App(service, lines.append)
    with monkeypatch.context() as broken:
        broken.setattr(classifier, method, fail)
        status, answer = asyncio.run(_asked(app))
    assert (status, answer["error_type"]) == (500, "failed")
    assert [line.get("status") for line in lines] == [None, 500]
    assert error.__name__ in lines[0]["error"]
    assert asyncio.run(_asked(app))[0] == 200
    service.close()
    assert b'trimexport_errors_total{kind="failed"} 1.0' in service.metrics.text()
