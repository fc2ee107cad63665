"""Real servers on loopback: each a process of its own, as people run it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tiny

START = "from trimexport_runtime.cli import main; main()"


@dataclass
class Server:
    """A server that runs, and the name of its first bundle."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int
    name: str

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON where it is some, and headers of an answer; a body that is no bytes is sent
        as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, raw, headers or {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        found = {name.lower(): value for name, value in answer.getheaders()}
        is_json = found.get("content-type", "").startswith("application/json")
        return answer.status, json.loads(content) if is_json else content, found

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, list[dict[str, Any]]]:
        """End it; its exit status and the rest of its log."""
        self.process.send_signal(number)
        self.process.wait(timeout=60)
        _, *lines = self.log.read_text().removesuffix("\n").split("\n")
        return self.process.returncode, [json.loads(line) for line in lines]


Serve = Callable[..., Server]


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Serve]:
    """Start servers, whose logs are in `folder`, and end them."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: object, **variables: str) -> Server:
        log = folder / f"server-{len(running)}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", START, "serve", *map(str, arguments), "--port", "0"],
                stderr=stream,
                env={**os.environ, **variables},
            )
        running.append(process)
        while not (lines := log.read_text().splitlines(keepends=True)) or lines[0][-1] != "\n":
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        assert lines[0].startswith("{"), lines
        line = json.loads(lines[0])
        return Server(process, log, line["port"], next(iter(line["serving"]), ""))

    try:
        yield start
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server: `serve(bundle, "--wait", 5)`."""
    with serving(tmp_path) as start:
        yield start


@pytest.fixture
def pairs(tiny_bundle_copy: Path) -> Path:
    """A tiny bundle whose prompt takes a query and a document, and has a default instruction."""

    def change(raw: dict[str, Any]) -> None:
        raw["format_version"] = 2
        raw["text_limit"]["field"] = "document"
        raw["prompt"]["fields"] = [
            {"name": "instruction", "default": "is it so"},
            {"name": "query", "before": [9, 10]},
            {"name": "document", "before": [11], "lead": " "},
        ]

    tiny.edit_json(tiny_bundle_copy / "trimexport.json", change)
    return tiny_bundle_copy


@pytest.fixture
def bundle(sentiment: Path) -> Path:
    """gemma-mini's first task in float32, whose answers are the same bits in any batch."""
    return sentiment
