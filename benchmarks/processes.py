"""The peers of a comparison: read from a TOML file, started, asked, ended.

    [[peer]]                                    # the first is compared with all others
    python = "build/peers/pytorch/bin/python"   # of its environment
    script = "pytorch.py"                       # in benchmarks/peers
    artefact = "build/gemma-2b"                 # or a table, one for each prompt
    arguments = ["--dtype", "bfloat16"]
    batch = 16                                  # the texts that it runs best together
    group = 1                                   # peers of one group are in memory together
    workloads = ["one sentence"]                # that it is measured on, besides the labelled one;
                                                # all where it does not say
    reference = true                            # the peer whose answers are the right ones

See peers/protocol.py for what is said between them.
"""

from __future__ import annotations

import json
import subprocess
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

PEERS = Path(__file__).resolve().parent / "peers"
KEYS = {
    "name",
    "python",
    "script",
    "artefact",
    "arguments",
    "batch",
    "group",
    "workloads",
    "reference",
}
OWN = "trimexport_peer.py"


class PeerError(Exception):
    """A peer ended without an answer."""


@dataclass(frozen=True)
class Spec:
    """How a peer is started. `artefacts` holds one for each prompt that the peer can answer;
    under "" it serves for every prompt."""

    name: str
    python: str
    script: str
    artefacts: dict[str, str]
    arguments: tuple[str, ...] = ()
    batch: int = 16
    group: int = 1
    workloads: tuple[str, ...] = ()
    reference: bool = False

    @property
    def own(self) -> bool:
        """Whether this is this project's runtime."""
        return self.script == OWN

    def artefact(self, prompt: str) -> str | None:
        return self.artefacts.get(prompt, self.artefacts.get(""))


@dataclass
class Process:
    """A peer that is running. `ready` is what it said when it had loaded, `start_seconds` how
    long that took from the start of its process."""

    spec: Spec
    popen: subprocess.Popen[str]
    log: Path
    ready: dict[str, Any] = field(default_factory=dict)
    start_seconds: float = 0.0

    def ask(self, texts: tuple[str, ...], batch: int) -> dict[str, Any]:
        """Classify texts.

        Raises:
            PeerError: the process ended.
        """
        return self._request({"texts": texts, "batch": batch})

    def ids(self, texts: tuple[str, ...]) -> list[list[int]]:
        """What the model reads of each text, the prompt included.

        Raises:
            PeerError: the process ended.
        """
        found: list[list[int]] = self._request({"texts": texts, "ids": True})["ids"]
        return found

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.popen.stdin is not None
        try:
            self.popen.stdin.write(json.dumps(request) + "\n")
            self.popen.stdin.flush()
        except BrokenPipeError:
            raise self._error() from None
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line that the peer says."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            raise self._error()
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process and wait until its memory is free."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.close()
        self.popen.wait()
        self.popen.stdout.close()

    def _error(self) -> PeerError:
        code = self.popen.wait()
        last = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        said = last[0] if last else "it said nothing"
        return PeerError(f"{self.spec.name} ended with status {code}: {said} (see {self.log})")


def read_specs(file: Path) -> list[Spec]:
    """The peers that a TOML file names, in its order."""
    tables = tomllib.loads(file.read_text(encoding="utf-8")).get("peer", [])
    if not tables:
        raise click.ClickException(f"{file} names no peer; it needs at least one [[peer]]")
    return [_spec(file, table) for table in tables]


def _spec(file: Path, table: dict[str, Any]) -> Spec:
    unknown = sorted(set(table) - KEYS)
    missing = sorted({"name", "python", "script", "artefact"} - set(table))
    if unknown or missing:
        raise click.ClickException(
            f"{file}: a peer has the unknown keys {unknown} and lacks {missing}; "
            f"the keys are {sorted(KEYS)}"
        )
    artefact = table["artefact"]
    return Spec(
        name=table["name"],
        python=table["python"],
        script=table["script"],
        artefacts=artefact if isinstance(artefact, dict) else {"": artefact},
        arguments=tuple(table.get("arguments", ())),
        batch=table.get("batch", Spec.batch),
        group=table.get("group", Spec.group),
        workloads=tuple(table.get("workloads", ())),
        reference=table.get("reference", Spec.reference),
    )


def start(spec: Spec, prompt: str, prompt_file: Path, labels: str, threads: int) -> Process:
    """Start a peer and wait until it has loaded. What it prints goes to a log beside the prompt.

    Raises:
        PeerError: it ended before it was ready.
    """
    log = prompt_file.with_name(f"{spec.name} {prompt}.log".replace(" ", "-").replace("/", "-"))
    command = [
        spec.python,
        str(PEERS / spec.script),
        str(spec.artefact(prompt)),
        f"--prompt-file={prompt_file}",
        f"--labels={labels}",
        f"--threads={threads}",
        *spec.arguments,
    ]
    began = time.perf_counter()
    with log.open("w", encoding="utf-8") as errors:
        popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    process = Process(spec, popen, log)
    process.ready = process.answer()
    process.start_seconds = time.perf_counter() - began
    return process
