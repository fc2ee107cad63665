"""Many tasks on one backbone: what a task more costs, and what a pack costs beside a bundle.

    python benchmarks/packs.py CHECKPOINT WORK [--precision int8] [--tasks 20] [--rounds 5]

CHECKPOINT is a model; WORK a directory for the backbone, the packs and the bundle, which are kept
there and made again only where they are missing. The tasks are one prompt with so many different
words before it. Three things are measured:

- memory: a process that loads the backbone with one task, and one that loads it with all of them;
- latency: texts of one length, alone and in batches of 8, by the pack and by the bundle that has
  the same prompt compiled in, in turns; the median of each;
- throughput: batches of 8 for one task, and batches of 8 for each of 8 tasks in turn.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np

from trimexport import BuildSpec, build
from trimexport.bench.machine import this_machine
from trimexport.packs.backbone import build_backbone
from trimexport.packs.pack import pack
from trimexport_runtime import Backbone, Classifier
from trimexport_runtime.tokenize import Encoded

LABELS = ("positive", "negative")
PROMPT = "Task {number}. Review: {{text}}\nSentiment:"
MIXED = 8
BATCH = 8

MEMORY = """
import resource, sys
from trimexport_runtime import Backbone
backbone = Backbone.load(sys.argv[1], variant=sys.argv[2])
for path in sys.argv[3:]:
    backbone.task(path).classify(["a gorgeous, witty, seductive movie"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--precision", default="int8", show_default=True)
@click.option("--tasks", default=20, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--tokens", default=48, show_default=True, help="Of a text.")
def main(
    checkpoint: Path, work: Path, precision: str, tasks: int, rounds: int, tokens: int
) -> None:
    """Measure packs on a backbone, and print a table."""
    backbone, packs, bundle = made(checkpoint, work, precision, tasks)
    machine = this_machine()
    click.echo(f"{machine.processor}, {machine.cores} cores\n")
    one, many = (peak(backbone, precision, packs[:count]) for count in (1, tasks))
    click.echo(f"memory: 1 task {one:,.0f} MB, {tasks} tasks {many:,.0f} MB: {many / one:.3f}")
    size = max(path.stat().st_size for path in packs)
    click.echo(f"largest pack: {size / 1e3:,.0f} kB")
    loaded = Backbone.load(backbone, variant=precision)
    on_pack = [loaded.task(path) for path in packs[:MIXED]]
    whole = Classifier.load(bundle, variant=precision)
    rng = np.random.default_rng(0)
    known = range(100, 1000)  # tokens of words in all vocabularies that are supported
    for rows in (1, BATCH):
        batch = [Encoded(rng.choice(known, tokens), truncated=False) for _ in range(rows)]
        ours, theirs = in_turns([on_pack[0], whole], batch, rounds)
        click.echo(
            f"{rows} x {tokens}: pack {ours:.2f} ms, bundle {theirs:.2f} ms: {ours / theirs:.3f}"
        )
    batch = [Encoded(rng.choice(known, tokens), truncated=False) for _ in range(BATCH)]
    single, mixed = [], []
    for _ in range(rounds):
        single.append(seconds(lambda: [on_pack[0].run(batch) for _ in range(3 * MIXED)]))
        mixed.append(seconds(lambda: [task.run(batch) for task in on_pack for _ in range(3)]))
    share = statistics.median(single) / statistics.median(mixed)
    click.echo(f"throughput of {len(on_pack)} tasks mixed, by that of one: {share:.3f}")


def made(checkpoint: Path, work: Path, precision: str, tasks: int) -> tuple[Path, list[Path], Path]:
    """The backbone, a pack for each task, and the bundle of the first."""
    backbone, bundle = work / "backbone", work / "bundle"
    specs = [
        BuildSpec(
            model=str(checkpoint),
            labels=LABELS,
            prompt=PROMPT.format(number=number),
            precision=(precision,),
        )
        for number in range(tasks)
    ]
    if not backbone.exists():
        build_backbone(BuildSpec(model=str(checkpoint), precision=(precision,)), backbone)
    packs = [work / f"task-{number}.pack" for number in range(tasks)]
    for spec, path in zip(specs, packs, strict=True):
        if not path.exists():
            pack(backbone, spec, path, keep=(precision,))
    if not bundle.exists():
        build(specs[0], bundle, keep=(precision,))
    return backbone, packs, bundle


def peak(backbone: Path, precision: str, packs: Sequence[Path]) -> float:
    """The peak memory, in MB, of a process that answers a text for each pack."""
    command = [sys.executable, "-c", MEMORY, str(backbone), precision, *map(str, packs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1e3


def in_turns(
    classifiers: Sequence[Classifier], batch: Sequence[Encoded], rounds: int
) -> list[float]:
    """Milliseconds of a batch by each classifier, one after the other: the median of 20 a round."""
    found: list[list[float]] = [[] for _ in classifiers]
    for _ in range(20 * rounds):
        for classifier, own in zip(classifiers, found, strict=True):
            start = time.perf_counter()
            classifier.run(batch)
            own.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(own) for own in found]


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
