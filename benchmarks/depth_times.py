"""Accuracy of a head by depth, against the milliseconds that a text takes with so many layers.

    python benchmarks/depth.py agnews CHECKPOINT --data DATA --cache CACHE --json agnews.json
    python benchmarks/depth_times.py agnews.json sst2.json --checkpoint CHECKPOINT --work WORK \
        -o docs/depth.svg

Each file is one task and one model, which is found among the checkpoints by its name. Of every
checkpoint four `int8` bundles are kept in WORK, of a third of the layers to all, and made where
they are missing. They classify a text of a task's mean length in turns; medians are printed.
The chart has accuracy on the test at every depth, the mean and the standard deviation over the
draws; its milliseconds are of a straight line through the four, whose distance from it is printed.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import matplotlib
import matplotlib.figure
import numpy as np
import numpy.typing as npt

from questions import build_missing
from trimexport import BuildSpec
from trimexport.bench.machine import this_machine
from trimexport.evaluation.plots import STYLE
from trimexport.spec import LAST
from trimexport_runtime import Classifier
from trimexport_runtime.tokenize import Encoded

TOKENS = {"agnews": 55, "sst2": 25}
TITLES = {"agnews": "AG News", "sst2": "SST-2"}
SHARES = (1 / 3, 1 / 2, 3 / 4, 1)
COLOURS = ("#1f6feb", "#bf5700", "#8250df", "#1a7f37")


@dataclass(frozen=True)
class Curve:
    """Accuracy float [layers, draws] in percent of a model's head on so many texts a label."""

    task: str
    model: str
    pool: str
    shots: int
    accuracy: npt.NDArray[np.float64]


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option("--work", required=True, type=click.Path(path_type=Path))
@click.option("--rounds", default=15, show_default=True)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
def main(
    files: tuple[Path, ...], checkpoints: tuple[Path, ...], work: Path, rounds: int, output: Path
) -> None:
    """Measure, print and draw."""
    machine = this_machine()
    click.echo(f"{machine.processor}, {machine.cores} cores")
    curves = [curve for file in files for curve in curves_of(file)]
    lines: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
    for checkpoint in checkpoints:
        layers = {len(it.accuracy) for it in curves if it.model == checkpoint.name}
        if len(layers) != 1:
            raise click.ClickException(f"no file is of {checkpoint.name}, or they differ in layers")
        depths = sorted({max(1, round(share * max(layers))) for share in SHARES})
        loaded = [Classifier.load(bundle_of(checkpoint, depth, work)) for depth in depths]
        for task in dict.fromkeys(it.task for it in curves if it.model == checkpoint.name):
            found = milliseconds(loaded, TOKENS[task], rounds)
            lines[task, checkpoint.name] = np.polyfit(depths, found, 1)
            said = ", ".join(f"{n}: {ms:.1f}" for n, ms in zip(depths, found, strict=True))
            off = np.abs(np.polyval(lines[task, checkpoint.name], depths) / found - 1).max()
            click.echo(
                f"{checkpoint.name}, {TOKENS[task]} tokens, ms by layers: {said}; "
                f"at most {off:.1%} off the line"
            )
    draw(curves, lines, output)


def curves_of(file: Path) -> list[Curve]:
    """The curves that depth.py wrote."""
    held: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return [
        Curve(held["task"], held["model"], it["pool"], it["shots"], np.array(it["accuracy"]))
        for it in held["curves"]
    ]


def bundle_of(checkpoint: Path, depth: int, work: Path) -> Path:
    """A bundle of so many layers."""
    bundle = work / f"{checkpoint.name}-{depth}"
    spec = BuildSpec(
        model=str(checkpoint),
        labels=("World", "Sports", "Business", "Sci/Tech"),
        prompt="News: {text}\nTopic:",
        precision=("int8",),
        layers=depth,
    )
    build_missing(spec, bundle)
    return bundle


def milliseconds(loaded: list[Classifier], tokens: int, rounds: int) -> npt.NDArray[np.float64]:
    """The median time of a text of so many tokens by each, in turns. A call that is not counted
    comes first in each turn, for threads of another session may still wait for work."""
    ids = np.random.default_rng(0).integers(300, 400, tokens).astype(np.int64)
    found: list[list[float]] = [[] for _ in loaded]
    for _ in range(rounds):
        for classifier, own in zip(loaded, found, strict=True):
            classifier.run([Encoded(ids, False)])
            for _ in range(3):
                began = time.perf_counter()
                classifier.run([Encoded(ids, False)])
                own.append(1000 * (time.perf_counter() - began))
    return np.array([statistics.median(own) for own in found])


def draw(
    curves: list[Curve], lines: dict[tuple[str, str], npt.NDArray[np.float64]], output: Path
) -> None:
    """One panel a task, a line for each model and number of texts."""
    tasks = list(dict.fromkeys(it.task for it in curves))
    with matplotlib.rc_context(STYLE):
        size = (5.6 * len(tasks), 5)
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained", facecolor="white")
        panels = figure.subplots(1, len(tasks), squeeze=False)[0]
        for panel, task in zip(panels, tasks, strict=True):
            own = [it for it in curves if it.task == task]
            kinds = list(dict.fromkeys((it.model, it.shots) for it in own))
            for curve in own:
                colour = COLOURS[kinds.index((curve.model, curve.shots))]
                depths = np.arange(1, len(curve.accuracy) + 1)
                ms = np.polyval(lines[task, curve.model], depths)
                mean, spread = curve.accuracy.mean(1), curve.accuracy.std(1, ddof=1)
                label = f"{curve.model}, {curve.shots} a label, {curve.pool}"
                style = {"color": colour, "linestyle": "-" if curve.pool == LAST else "--"}
                panel.plot(ms, mean, marker=".", linewidth=1, label=label, **style)
                panel.fill_between(ms, mean - spread, mean + spread, color=colour, alpha=0.08)
            panel.set(title=TITLES[task], xlabel=f"ms for a text of {TOKENS[task]} tokens")
            panel.grid(alpha=0.3)
            panel.legend(fontsize=6, loc="lower right")
        panels[0].set_ylabel("accuracy on the test, %")
        figure.savefig(output, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
