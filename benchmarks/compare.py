"""Compare the runtime with its peers in one paired run.

    python benchmarks/compare.py peers.toml --tokenizer build/gemma-2b/tokenizer.json \
        --data sst2 -o build/compare

In each round every peer in turn does the same work, and the order rotates from round to round, so
that what slows the machine down slows all of them down. Ratios are of one round; the median over
the rounds is reported. The peers file is described in processes.py.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

import chart
import tables
from processes import PeerError, Process, Spec, read_specs, start
from trimexport.bench.machine import this_machine
from trimexport.bench.rounds import rotated
from workloads import SHAPES, Workload, prompts, read_texts, workloads

LABELS = "positive,negative"


@dataclass
class Results:
    """What was measured. Everything in it is written to results.json."""

    machine: dict[str, Any]
    threads: int
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)


@click.command()
@click.argument("peers", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="The model's tokenizer.json, to choose texts by their length.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="A directory with SST-2's train.jsonl and test.jsonl.",
)
@click.option("--threads", default=2, show_default=True, help="Of each peer.")
@click.option("--rounds", default=5, show_default=True, help="Of each workload.")
@click.option("--sentences", default=256, show_default=True, help="Measured for throughput.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    default=SHAPES,
    show_default=True,
    help="Texts x tokens of a batch of its own; may be given more than once.",
)
@click.option("--only", multiple=True, help="Workloads by name; may be given more than once.")
@click.option("--append", is_flag=True, help="Add to the results that OUTPUT holds.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(
    peers: Path,
    tokenizer: Path,
    data: Path,
    threads: int,
    rounds: int,
    sentences: int,
    shapes: tuple[str, ...],
    only: tuple[str, ...],
    append: bool,
    output: Path,
) -> None:
    """Compare the peers that the file PEERS names, the first with all others."""
    test = read_texts(data / "test.jsonl", tokenizer)
    chosen = chosen_workloads(workloads(test, sentences, shapes), only)
    templates = prompts(read_texts(data / "train.jsonl", tokenizer))
    specs = read_specs(peers)
    output.mkdir(parents=True, exist_ok=True)
    results = Results(machine_facts(), threads)
    if append:
        results = continued(output / "results.json", results)
    for prompt in dict.fromkeys(workload.prompt for workload in chosen):
        file = output / f"prompt-{prompt}.txt"
        file.write_text(templates[prompt], encoding="utf-8")
        work = [workload for workload in chosen if workload.prompt == prompt]
        for group in groups(specs, prompt):
            compare_group(group, work, file, rounds, results)
    click.echo(tables.markdown(vars(results), specs[0].name))


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


def chosen_workloads(known: list[Workload], names: tuple[str, ...]) -> list[Workload]:
    """The workloads of these names; all without names."""
    unknown = sorted(set(names) - {workload.name for workload in known})
    if unknown:
        listed = ", ".join(workload.name for workload in known)
        raise click.ClickException(f"no such workload: {', '.join(unknown)}; there are: {listed}")
    return [workload for workload in known if not names or workload.name in names]


def groups(specs: list[Spec], prompt: str) -> list[list[Spec]]:
    """The peers that can answer this prompt, those that are in memory together; the first of all
    is in every group."""
    able = [spec for spec in specs if spec.artefact(prompt) is not None]
    numbers = sorted({spec.group for spec in able[1:]}) or [0]
    return [[able[0], *(spec for spec in able[1:] if spec.group == number)] for number in numbers]


def compare_group(
    specs: list[Spec], work: list[Workload], prompt_file: Path, rounds: int, results: Results
) -> None:
    """Start a group, measure its workloads, end it. What is measured is written at once."""
    with ExitStack() as stack:
        running: list[Process] = []
        for spec in specs:
            click.echo(f"{spec.name}: loading for the {work[0].prompt} prompt", err=True)
            try:
                process = start(spec, work[0].prompt, prompt_file, LABELS, results.threads)
            except PeerError as error:
                if not running:
                    raise click.ClickException(f"nothing to compare with: {error}") from None
                results.failures[spec.name] = str(error)
                click.echo(f"left out: {error}", err=True)
                continue
            stack.callback(process.close)
            running.append(process)
        for workload in work:
            try:
                measure(running, workload, rounds, results)
            except PeerError as error:
                raise click.ClickException(f"{error}; leave it out and run again") from None
            write(results, specs[0].name, prompt_file.parent)


def measure(processes: list[Process], work: Workload, rounds: int, results: Results) -> None:
    """All rounds of a workload, after one of each peer that does not count."""
    seconds: dict[str, list[float]] = {process.spec.name: [] for process in processes}
    logits: dict[str, list[list[float]]] = {}
    for process in processes:
        batch = work.batch or process.spec.batch
        first = process.ask(work.texts[:batch], batch)
        note_peer(process, first, results)
    with click.progressbar(length=rounds * len(processes), label=work.name) as bar:
        for turn in range(rounds):
            for process in rotated(processes, turn):
                answer = process.ask(work.texts, work.batch or process.spec.batch)
                seconds[process.spec.name].append(answer["seconds"])
                logits[process.spec.name] = answer["logits"]
                note_peer(process, answer, results)
                bar.update(1)
    results.runs.append(
        {
            "workload": work.name,
            "prompt": work.prompt,
            "texts": len(work.texts),
            "calls": len(work.texts) if work.batch == 1 else 1,
            "throughput": work.batch is None,
            "seconds": seconds,
            "logits": logits,
        }
    )


def note_peer(process: Process, answer: dict[str, Any], results: Results) -> None:
    """What is known of a peer: its version and first answer, and its memory so far."""
    known = results.peers.setdefault(
        process.spec.name,
        {
            "version": process.ready["version"],
            "peer": process.ready["peer"],
            "start_seconds": process.start_seconds,
            "first_answer_seconds": answer["seconds"],
            "peak_rss_bytes": 0,
            "gpu_bytes": None,
        },
    )
    known["gpu_bytes"] = answer.get("gpu_bytes") or known.get("gpu_bytes")
    known["peak_rss_bytes"] = max(known["peak_rss_bytes"], answer["peak_rss_bytes"])


def write(results: Results, ours: str, output: Path) -> None:
    """Write what is there so far: results.json, table.md and chart.svg."""
    values = vars(results)
    (output / "results.json").write_text(json.dumps(values) + "\n", encoding="utf-8")
    (output / "table.md").write_text(tables.markdown(values, ours), encoding="utf-8")
    (output / "chart.svg").write_text(chart.svg(values, ours), encoding="utf-8")


if __name__ == "__main__":
    main()
