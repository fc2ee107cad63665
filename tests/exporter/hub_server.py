"""A small Hugging Face hub on the loopback interface: the calls that a download makes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories by id, each a directory; ids that are refused; what was asked for."""

    repositories: dict[str, Path]
    gated: frozenset[str] = frozenset()
    gated_files: frozenset[str] = frozenset()
    broken_files: frozenset[str] = frozenset()
    failing: bool = False
    url: str = ""
    requests: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a request."""
        self.requests.append(path)
        parts = path.split("?")[0].strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        name = "/".join(parts[:2])
        if self.failing:
            return 500, {}, b"{}"
        if name in self.gated or (not api and name in self.gated_files):
            return 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}, b"{}"
        if name not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        revision = "main" if len(parts) < 4 else parts[3]
        if revision not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        folder = self.repositories[name]
        if api:
            return _listing(folder, name, tree="tree" in parts)
        return _file(folder / "/".join(parts[4:]))


def _listing(folder: Path, name: str, tree: bool) -> tuple[int, dict[str, str], bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [str(path.relative_to(folder)) for path in files]
    body: object = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
    if tree:
        body = [
            {"type": "file", "path": n, "size": path.stat().st_size, "oid": _etag(path)}
            for n, path in zip(names, files, strict=True)
        ]
    return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


def _file(path: Path) -> tuple[int, dict[str, str], bytes]:
    if not path.is_file():
        return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"
    headers = {"ETag": f'"{_etag(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
    return 200, headers, path.read_bytes()


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve it while the block runs; `hub.url` says where."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                broken = any(self.path.endswith(name) for name in hub.broken_files)
                self.wfile.write(body[: len(body) // 2] if broken else body)
                self.close_connection = self.close_connection or broken

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
