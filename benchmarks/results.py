"""What a comparison measured: kept as one value, written as it grows, and added to later."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

import chart
import scatter
import tables
from exactness import exactness
from processes import Process
from trimexport.bench.machine import this_machine


@dataclass
class Results:
    """What was measured. Everything in it is written to results.json. `labelled` has the logits of
    each peer on labelled sentences, the sentences' labels by their places, and the digests of the
    ids that each peer's model reads."""

    machine: dict[str, Any]
    threads: int
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    labelled: dict[str, Any] = field(default_factory=dict)


def machine_facts() -> dict[str, Any]:
    """What is known of this machine; `gpu` only where the driver's tool names one."""
    facts: dict[str, Any] = json.loads(json.dumps(asdict(this_machine())))
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return facts
    return {**facts, "gpu": lines.strip().splitlines()[0]}


def continued(file: Path, new: Results) -> Results:
    """The results of an earlier run on this machine, to add to; `new` where there are none."""
    if not file.exists():
        return new
    old = Results(**json.loads(file.read_text(encoding="utf-8")))
    if (old.machine, old.threads) != (new.machine, new.threads):
        raise click.ClickException(
            f"{file} was measured on another machine or with other threads: {old.machine}, "
            f"{old.threads}; name another output"
        )
    return old


def note_peer(process: Process, answer: dict[str, Any], results: Results) -> None:
    """What is known of a peer: its version and first answer, and its memory so far."""
    known = results.peers.setdefault(
        process.spec.name,
        {
            "version": process.ready["version"],
            "peer": process.ready["peer"],
            "own": process.spec.own,
            "reference": process.spec.reference,
            "files_bytes": process.ready["files_bytes"],
            "start_seconds": process.start_seconds,
            "first_answer_seconds": answer["seconds"],
            "peak_rss_bytes": 0,
            "gpu_bytes": None,
        },
    )
    known["gpu_bytes"] = answer.get("gpu_bytes") or known.get("gpu_bytes")
    known["peak_rss_bytes"] = max(known["peak_rss_bytes"], answer["peak_rss_bytes"])


def write(results: Results, ours: str, output: Path) -> None:
    """Write what is there so far: results.json, table.md and chart.svg; and scatter.svg where it is
    known how exact the peers are."""
    values = vars(results)
    (output / "results.json").write_text(json.dumps(values) + "\n", encoding="utf-8")
    (output / "table.md").write_text(tables.markdown(values, ours), encoding="utf-8")
    (output / "chart.svg").write_text(chart.svg(values, ours), encoding="utf-8")
    if values["runs"] and exactness(values):
        drawn = scatter.svg(values, ours, values["runs"][0]["workload"])
        (output / "scatter.svg").write_text(drawn, encoding="utf-8")
