"""A server for a measurement: `trimexport-run serve` as a process of its own, on loopback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START = "from trimexport_runtime.cli import main; main()"


@dataclass(frozen=True)
class Server:
    """A server that runs; its log is a JSON object a line."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def memory(self) -> int:
        """Bytes of resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (it for it in status.splitlines() if it.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def stop(self) -> tuple[int, list[dict[str, Any]]]:
        """End it with SIGTERM: its exit status, and the lines of its log."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> tuple[int, list[dict[str, Any]]]:
        """The same where it has its signal."""
        status = self.process.wait(timeout=120)
        return status, [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def serving(bundle: Path, *options: str) -> Iterator[Server]:
    """A server of one bundle, killed at the end if it still runs."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-c", START, "serve", str(bundle), "--port", "0", *options]
        with log.open("wb") as stream, subprocess.Popen(command, stderr=stream) as process:
            try:
                while not log.read_text().endswith("\n"):
                    if process.poll() is not None:
                        raise RuntimeError(f"the server did not start: {log.read_text()}")
                    time.sleep(0.05)
                port = json.loads(log.read_text().splitlines()[0])["port"]
                yield Server(process, port, log)
            finally:
                process.kill()
