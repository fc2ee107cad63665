"""Serve a directory of packs on one backbone, ask each of them about a text, and end the server.

python docs/examples/serve_packs.py build/backbone build/tasks "a gorgeous, witty movie"
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen


def main(backbone: str, packs: str, text: str) -> None:
    """Print what each task answers, one a line."""
    program = Path(sys.executable).with_name("trimexport-run")
    command = [str(program), "serve", backbone, "--packs", packs, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        try:
            if not line.startswith("{"):
                raise SystemExit(line + server.stderr.read())
            started = json.loads(line)  # the log's first line says where it listens
            for name in started["serving"]:
                url = f"http://127.0.0.1:{started['port']}/classify?model={name}"
                answer = ask(url, {"texts": [text]})["predictions"][0]
                print(f"{name}\t{answer['label']}\t{answer['probability']:.1%}")
        finally:
            server.terminate()


def ask(url: str, body: Any) -> Any:
    """The JSON that the server answers to a body."""
    with urlopen(Request(url, json.dumps(body).encode())) as answer:
        return json.load(answer)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
