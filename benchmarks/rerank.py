"""One query against many passages: this project's bundle and what a reranker's users run instead.

    python benchmarks/rerank.py CHECKPOINT BUNDLE --data DATA [--openvino DIR --python PYTHON]

CHECKPOINT is the untrimmed model, BUNDLE what `trimexport build --recipe
models/qwen3-reranker-0.6b.toml` made of it (or of another recipe with a query and a document), and
DIR what Optimum Intel exported of it for OpenVINO GenAI's rerank pipeline, which PYTHON has.

Every engine is a process of its own, and all rank the same passages, which are stories of AG News
test split, joined and cut to --tokens tokens, behind the bundle's prompt. PyTorch runs the model as
the card of Qwen3-Reranker does: whole prompts, padded to the left, and the logits of both labels'
words; only the last position is multiplied with the output layer. In each round every engine in
turn ranks all passages. Printed are the median over the rounds of seconds and passages a second,
the process' peak memory, and how exact the scores are: the margin error against PyTorch in float32,
here the deviation of the score's error by the score's own, and whether the ten best passages are
the same.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np
from tokenizers import Tokenizer

from rerank_engines import ENGINES, Prompt
from trimexport.bench.machine import this_machine
from trimexport.prompt.template import parse_template
from trimexport_runtime.bundle import read_manifest

QUERY = "which company is being bought by a larger rival, and for how much"
TOP = 10
REFERENCE = "pytorch-float32"


@dataclass
class Engine:
    """A process that ranks, and what it has measured."""

    name: str
    process: subprocess.Popen[str]
    seconds: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    megabytes: float = 0.0

    def ask(self, message: object) -> dict[str, object]:
        """Its answer to a message."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(message, allow_nan=False) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise click.ClickException(f"{self.name} ended with code {self.process.wait()}")
        answer: dict[str, object] = json.loads(line)
        return answer


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--openvino", type=click.Path(path_type=Path, exists=True))
@click.option("--python", default=sys.executable, help="That has openvino_genai.")
@click.option("--only", multiple=True, type=click.Choice(sorted(ENGINES)))
@click.option("--passages", default=100, show_default=True)
@click.option("--tokens", default=120, show_default=True, help="Of a passage.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(
    checkpoint: Path,
    bundle: Path,
    data: Path,
    openvino: Path | None,
    python: str,
    only: tuple[str, ...],
    passages: int,
    tokens: int,
    rounds: int,
    threads: int,
) -> None:
    """Rank passages with every engine, and print what that takes."""
    documents = read_passages(data, checkpoint, passages, tokens)
    engines = []
    for name, (kind, _) in ENGINES.items():
        source = {"bundle": bundle, "checkpoint": checkpoint, "openvino": openvino}[kind]
        if source is None or (only and name not in only):
            continue
        engines.append(started(name, source, python if kind == "openvino" else sys.executable))
    first = {"threads": threads, "query": QUERY, "documents": documents[:8]}
    prompt = asdict(prompt_of(bundle))
    for engine in engines:  # one after the other, so that none is timed while another loads
        engine.ask({**first, "prompt": prompt})
    for number in range(rounds):
        for engine in engines[number % len(engines) :] + engines[: number % len(engines)]:
            answer = engine.ask({"query": QUERY, "documents": documents})
            engine.seconds.append(float(str(answer["seconds"])))
            engine.scores = list(answer["scores"])  # type: ignore[call-overload]
            engine.megabytes = float(str(answer["megabytes"]))
    show(engines, passages)


def prompt_of(bundle: Path) -> Prompt:
    """The prompt that a bundle has compiled in, with its fields' defaults."""
    manifest = read_manifest(bundle)
    template = parse_template(manifest.prompt.template)
    names = [field.name for field in template.fields]
    if names[-2:] != ["query", "document"]:
        raise click.ClickException(f"its fields are {', '.join(names)}, not a query and a document")
    texts = [field.default or "" for field in template.fields[:-2]]
    given = zip(template.pieces, texts, strict=False)
    before = "".join(piece + text for piece, text in given) + template.pieces[-2]
    yes, no = (template.label_lead + label.words[0] for label in manifest.labels)
    return Prompt(before, template.pieces[-1], template.suffix.rstrip(" "), (yes, no))


def read_passages(data: Path, checkpoint: Path, count: int, tokens: int) -> list[str]:
    """Passages of so many tokens."""
    lines = (data / "agnews" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    stories = [json.loads(line)["text"] for line in lines[: 6 * count]]
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    whole = [" ".join(stories[6 * n : 6 * n + 6]) for n in range(count)]
    return [text[: tokenizer.encode(text).offsets[tokens - 1][1]] for text in whole]


def started(name: str, source: Path, python: str) -> Engine:
    """The engine's process."""
    script = Path(__file__).with_name("rerank_engines.py")
    process = subprocess.Popen(
        [python, str(script), name, str(source)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Engine(name, process)


def show(engines: list[Engine], passages: int) -> None:
    """Print the table."""
    reference = next((it.scores for it in engines if it.name == REFERENCE), engines[0].scores)
    exact = np.array(reference)
    best = set(np.argsort(-exact)[:TOP].tolist())
    machine = this_machine()
    click.echo(f"{machine.processor}, {passages} passages; medians of {len(engines[0].seconds)}\n")
    click.echo("| engine | s | passages a second | MB | margin error | ten best the same |")
    click.echo("| --- | --: | --: | --: | --: | --: |")
    for engine in engines:
        scores = np.array(engine.scores)
        error = float((scores - exact).std() / exact.std())
        same = len(best & set(np.argsort(-scores)[:TOP].tolist()))
        seconds = statistics.median(engine.seconds)
        click.echo(
            f"| {engine.name} | {seconds:.1f} | {passages / seconds:.1f} | {engine.megabytes:,.0f} "
            f"| {error:.3f} | {same} of {TOP} |"
        )


if __name__ == "__main__":
    main()
