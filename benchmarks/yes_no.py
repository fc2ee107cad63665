"""Yes or no with a real model that was not trained for it: relevance and safety, end to end once.

    python benchmarks/yes_no.py CHECKPOINT --data DATA [--chat] [-o DIRECTORY]

builds two bundles of CHECKPOINT in float32 and int8, as a user would: whether a news story answers
a search for a section of news (AG News, 300 stories of the test split, each with its own section
and with another), and whether a message is unwanted advertising (the SMS spam collection, as many
of both kinds). Printed are the area under the ROC curve of the score, which asks for the right
order alone; accuracy from a probability of one half on; and, for int8, the share of rows with the
same answer as in float32, and the margin error, here the deviation of the score's error by the
score's own. Nothing was tuned:
the prompts are the first that were written.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from trimexport import BuildSpec, build
from trimexport_runtime import Classifier, Input

QUERIES = {
    "World": "news about wars, elections and diplomacy between countries",
    "Sports": "news about matches, players and championships",
    "Business": "news about companies, markets and the economy",
    "Sci/Tech": "news about science, computers and the internet",
}
RELEVANCE = (
    "Query: {query}\nDocument: {document}\n"
    "Question: Does the document answer the query? Answer yes or no.\nAnswer:"
)
SAFETY = (
    "Message: {text}\nQuestion: Is this message unwanted advertising or fraud? Answer yes or no.\n"
    "Answer:"
)


@dataclass(frozen=True)
class Task:
    """A prompt, its rows, and which of them are true."""

    name: str
    prompt: str
    rows: list[Input]
    gold: npt.NDArray[np.bool_]


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def relevance(data: Path) -> Task:
    """Each story with the query of its own section, and with that of the next."""
    names = list(QUERIES)
    rows: list[dict[str, str]] = []
    gold = []
    for line in _lines(data / "agnews" / "test_300.jsonl"):
        own = names.index(line["label"])
        for step in (0, 1 + len(rows) // 2 % 3):
            query = QUERIES[names[(own + step) % len(names)]]
            rows.append({"query": query, "document": line["text"]})
            gold.append(step == 0)
    return Task("relevance", RELEVANCE, list(rows), np.array(gold))


def safety(data: Path) -> Task:
    """As many messages of both kinds."""
    lines = _lines(data / "sms" / "all.jsonl")
    spam = [line["text"] for line in lines if line["label"] == "spam"][:150]
    ham = [line["text"] for line in lines if line["label"] == "ham"][: len(spam)]
    return Task("safety", SAFETY, [*spam, *ham], np.arange(len(spam) + len(ham)) < len(spam))


def area(scores: npt.NDArray[np.float32], gold: npt.NDArray[np.bool_]) -> float:
    """The area under the ROC curve: how often a true row has the higher score, ties half."""
    higher = scores[gold][:, None] - scores[~gold][None, :]
    return float((higher > 0).mean() + (higher == 0).mean() / 2)


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--chat", is_flag=True, help="Ask in the checkpoint's chat template.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Keep the bundles there.")
def main(checkpoint: Path, data: Path, chat: bool, output: Path | None) -> None:
    """Build, classify and print the table."""
    click.echo("| task | precision | area | accuracy | same answer | margin error | ms a row |")
    click.echo("| --- | --- | --: | --: | --: | --: | --: |")
    with tempfile.TemporaryDirectory() as room:
        for task in (relevance(data), safety(data)):
            spec = BuildSpec(
                model=str(checkpoint),
                labels=("yes", "no"),
                prompt=task.prompt.removesuffix("\nAnswer:") if chat else task.prompt,
                precision=("int8", "fp32"),
                score="log-odds",
                chat=chat,
            )
            bundle = (output or Path(room)) / task.name
            build(spec, bundle, keep=spec.precision, force=True)
            show(task, bundle)


def show(task: Task, bundle: Path) -> None:
    """The rows of a task's table, float32 first."""
    exact: npt.NDArray[np.float32] | None = None
    for precision in ("fp32", "int8"):
        classifier = Classifier.load(bundle, variant=precision)
        began = time.perf_counter()
        scores = classifier.logits(task.rows)[:, 0]
        milliseconds = (time.perf_counter() - began) / len(task.rows) * 1e3
        exact = scores if exact is None else exact
        same = ((scores > 0) == (exact > 0)).mean()
        error = (scores - exact).std() / exact.std()
        click.echo(
            f"| {task.name}, {len(task.rows)} rows | {precision} | {area(scores, task.gold):.3f} "
            f"| {((scores > 0) == task.gold).mean():.1%} | {same:.1%} | {error:.3f} "
            f"| {milliseconds:.0f} |"
        )


if __name__ == "__main__":
    main()
