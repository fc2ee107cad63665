"""Compare the runtime with its peers in one paired run.

    python benchmarks/compare.py peers.toml --tokenizer build/gemma-2b/tokenizer.json \
        --data sst2 -o build/compare
    python benchmarks/compare.py peers-gemma3-270m.toml --recipe models/sst2-gemma3-270m.toml \
        --labelled 400 --tokenizer tokenizer.json --data sst2 -o build/compare-gemma3-270m

In each round every peer in turn does the same work, and the order rotates from round to round, so
that what slows the machine down slows all of them down. Before its turn there is a pause, until the
threads of the peer before have stopped waiting for more work, and a batch that is not counted.
Ratios are of one round; the median over the rounds is reported. With `--labelled` every peer
classifies so many labelled sentences once, not timed, which gives its accuracy and its margin error
against the peer that the file calls the reference; times are compared among those that are equally
exact (see exactness.py). The peers file is described in processes.py.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import ExitStack
from pathlib import Path

import click

import tables
from processes import PeerError, Process, Spec, read_specs, start
from results import Results, continued, machine_facts, note_peer, write
from trimexport.bench.rounds import rotated
from workloads import (
    SHAPES,
    Workload,
    labelled,
    prompts,
    read_texts,
    recipe_prompt,
    workloads,
)

LABELS = "positive,negative"
PAUSE = 0.25  # seconds; OpenMP's threads wait 0.2 before they sleep


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
@click.option(
    "--recipe",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Its prompt alone, in place of the two of Gemma-2B's.",
)
@click.option("--labelled", "count", default=0, help="Sentences to find out who is how exact.")
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
@click.option("--group", "numbers", multiple=True, type=int, help="Of peers; or more than one.")
@click.option("--append", is_flag=True, help="Add to the results that OUTPUT holds.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(
    peers: Path,
    tokenizer: Path,
    data: Path,
    recipe: Path | None,
    count: int,
    threads: int,
    rounds: int,
    sentences: int,
    shapes: tuple[str, ...],
    only: tuple[str, ...],
    numbers: tuple[int, ...],
    append: bool,
    output: Path,
) -> None:
    """Compare the peers that the file PEERS names, the first with all others."""
    test = read_texts(data / "test.jsonl", tokenizer)
    train = data / "train.jsonl"
    templates = recipe_prompt(recipe) if recipe else prompts(read_texts(train, tokenizer))
    known = workloads(test, sentences, shapes, list(templates))
    if count:
        known.append(labelled(test, count, next(iter(templates))))
    chosen = chosen_workloads(known, only)
    specs = read_specs(peers)
    check_specs(specs, known, numbers)
    output.mkdir(parents=True, exist_ok=True)
    results = Results(machine_facts(), threads)
    if append:
        results = continued(output / "results.json", results)
    for prompt in dict.fromkeys(workload.prompt for workload in chosen):
        file = output / f"prompt-{prompt}.txt"
        file.write_text(templates[prompt], encoding="utf-8")
        work = [workload for workload in chosen if workload.prompt == prompt]
        for group in groups(specs, prompt, numbers):
            compare_group(group, work, file, rounds, results)
    click.echo(tables.markdown(vars(results), specs[0].name))


def chosen_workloads(known: list[Workload], names: tuple[str, ...]) -> list[Workload]:
    """The workloads of these names; all without names."""
    unknown = sorted(set(names) - {workload.name for workload in known})
    if unknown:
        listed = ", ".join(workload.name for workload in known)
        raise click.ClickException(f"no such workload: {', '.join(unknown)}; there are: {listed}")
    return [workload for workload in known if not names or workload.name in names]


def check_specs(specs: list[Spec], known: list[Workload], numbers: tuple[int, ...]) -> None:
    """Refuse peers, or groups of them, that do not fit the workloads.

    Raises:
        ClickException: it says which.
    """
    there = {spec.group for spec in specs[1:]}
    if set(numbers) - there:
        raise click.ClickException(f"the groups are {sorted(there)}, not all of {list(numbers)}")
    for spec in specs:
        chosen_workloads(known, spec.workloads)
    references = sum(spec.reference for spec in specs)
    if references > 1 or (references == 0 and any(work.gold for work in known)):
        raise click.ClickException(
            f"{references} peers have `reference = true`; one has to say what is right"
        )


def groups(specs: list[Spec], prompt: str, numbers: tuple[int, ...] = ()) -> list[list[Spec]]:
    """The peers that can answer this prompt, those that are in memory together, of the groups of
    these numbers (of all without numbers); the first of all is in every group."""
    able = [spec for spec in specs if spec.artefact(prompt) is not None]
    there = sorted({spec.group for spec in able[1:]}) or [0]
    return [
        [able[0], *(spec for spec in able[1:] if spec.group == number)]
        for number in there
        if not numbers or number in numbers
    ]


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
                if workload.gold:
                    score(running, workload, results)
                else:
                    measure(taking_part(running, workload), workload, rounds, results)
            except PeerError as error:
                raise click.ClickException(f"{error}; leave it out and run again") from None
            write(results, specs[0].name, prompt_file.parent)


def taking_part(processes: list[Process], work: Workload) -> list[Process]:
    """Those that are to be timed at a workload."""
    return [it for it in processes if not it.spec.workloads or work.name in it.spec.workloads]


def score(processes: list[Process], work: Workload, results: Results) -> None:
    """What each peer makes of labelled sentences, and which ids its model reads of them.

    Raises:
        ClickException: the earlier results are of other sentences.
    """
    labels = LABELS.split(",")
    about = {"workload": work.name, "gold": [labels.index(label) for label in work.gold]}
    known = results.labelled or {**about, "reference": None, "logits": {}, "ids": {}}
    if {key: known[key] for key in about} != about:
        raise click.ClickException(
            f"the earlier results are of {known['workload']}; name another output"
        )
    results.labelled = known
    for process in processes:
        name = process.spec.name
        click.echo(f"{name}: {work.name}", err=True)
        answer = process.ask(work.texts, process.spec.batch)
        note_peer(process, answer, results)
        known["logits"][name] = answer["logits"]
        known["ids"][name] = [digest(ids) for ids in process.ids(work.texts)]
        if process.spec.reference:
            known["reference"] = name


def digest(ids: list[int]) -> str:
    """A short name for ids, the same for the same ones."""
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:12]


def measure(processes: list[Process], work: Workload, rounds: int, results: Results) -> None:
    """All rounds of a workload, after one of each peer that does not count. What was measured of it
    earlier, of the same peers, is replaced."""
    seconds: dict[str, list[float]] = {process.spec.name: [] for process in processes}
    logits: dict[str, list[list[float]]] = {}
    for process in processes:
        batch = work.batch or process.spec.batch
        first = process.ask(work.texts[:batch], batch)
        note_peer(process, first, results)
    with click.progressbar(length=rounds * len(processes), label=work.name) as bar:
        for turn in range(rounds):
            for process in rotated(processes, turn):
                batch = work.batch or process.spec.batch
                time.sleep(PAUSE)
                process.ask(work.texts[:batch], batch)
                answer = process.ask(work.texts, batch)
                seconds[process.spec.name].append(answer["seconds"])
                logits[process.spec.name] = answer["logits"]
                note_peer(process, answer, results)
                bar.update(1)
    again = (work.name, set(seconds))
    results.runs = [it for it in results.runs if (it["workload"], set(it["seconds"])) != again]
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


if __name__ == "__main__":
    main()
