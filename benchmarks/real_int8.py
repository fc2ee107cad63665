"""What int8 loses on a real model, by scheme.

    python benchmarks/real_int8.py CHECKPOINT sst2/test.jsonl --labels positive,negative \\
        --prompt "Review: {text}\\nSentiment:"
    python benchmarks/real_int8.py CHECKPOINT agnews/test.jsonl --labels World,Sports,... \\
        --prompt "News: {text}\\nTopic:" --examples agnews/shots_64.jsonl

writes the checkpoint's graph in each scheme, classifies the texts and prints, against the float32
graph (which `trimexport build` compares with the untrimmed model):

- agreement: the share of texts with float32's label; every flip counts;
- margin error: of the margin between the two labels that float32 finds most probable, the standard
  deviation of its error by its own standard deviation;
- accuracy, and the processor's time for one text in one thread, the median of the first 50.

`--prompt @FILE` reads the prompt from a file. With `--examples` a head is fitted to them, as
`trimexport fit` does, on what the float32 graph makes of them; every scheme gets that head. Choose
schemes by one set of texts and report on another. Calibrated are those of tensorrt-int8 and what
says so, on `--calibration` or on the texts that ship.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from tokenizers import Tokenizer

from schemes import SCHEMES, Subject, compiled, write_scheme
from trimexport import BuildSpec, Texts
from trimexport.bundle.written_head import Head, give_hidden, read_head
from trimexport.numerics import Floats, Places, margin_error
from trimexport.planning import plan
from trimexport.prompt.template import unescape
from trimexport.source.shipped import calibration_texts
from trimexport.texts import read_texts
from trimexport.tuning.examples import fold_numbers
from trimexport.tuning.regression import fit_head, logits_of
from trimexport_runtime.backends.onnxruntime import session_options
from trimexport_runtime.batching import batches, pad, rows_within
from trimexport_runtime.bundle import OUTPUT

Ids = npt.NDArray[np.int64]
TOKENS = 1024  # of a batch
TIMED = 50  # texts


@dataclass(frozen=True)
class Opened:
    """A graph that runs in one thread and gives what its head reads, an output called `hidden`;
    and the head."""

    session: Any
    hidden: str
    head: Head


@dataclass(frozen=True)
class Answers:
    """What a graph makes of texts: hidden states float64 [texts, hidden] and logits float64 [texts,
    labels]."""

    hidden: Floats
    logits: Floats


def opened(file: Path) -> Opened:
    """Open a written graph, which is changed to give hidden states."""
    model = onnx.load(file, load_external_data=False)
    head, name = read_head(model), give_hidden(model)
    onnx.save(model, file)
    session = ort.InferenceSession(str(file), session_options(1))
    return Opened(session, name, head)


def answers(graph: Opened, rows: Sequence[Ids]) -> Answers:
    """Run texts in batches of like lengths."""
    hidden: list[Any] = [None] * len(rows)
    logits: list[Any] = [None] * len(rows)
    for batch in batches([len(row) for row in rows], rows_within(TOKENS)):
        ids, mask = pad([rows[place] for place in batch])
        feed = {"input_ids": ids, "attention_mask": mask}
        states, found = graph.session.run([graph.hidden, OUTPUT], feed)
        every = states.reshape(len(batch), -1, states.shape[-1])  # of which the answer's is first
        for place, state, logit in zip(batch, every[:, 0], found, strict=True):
            hidden[place], logits[place] = state, logit
    return Answers(np.array(hidden, dtype=np.float64), np.array(logits, dtype=np.float64))


def milliseconds(graph: Opened, rows: Sequence[Ids]) -> float:
    """The processor's time for a text, the median of the first of them, one after the other."""
    seconds = []
    for row in rows[:TIMED]:
        began = time.thread_time()
        feed = {"input_ids": row[None], "attention_mask": np.ones_like(row[None])}
        graph.session.run(None, feed)
        seconds.append(time.thread_time() - began)
    return 1000 * statistics.median(seconds)


def line(name: str, found: Floats, expected: Floats, gold: Places, spent: float) -> str:
    """A row of the table."""
    chosen = found.argmax(1)
    same = (chosen == expected.argmax(1)).mean()
    right = (chosen == gold).mean()
    error = margin_error(expected, found)
    shown = "—" if error is None else f"{error:.3f}"
    return f"| {name} | {same:.2%} | {shown} | {right:.2%} | {spent:.1f} |"


def _table(
    subject: Subject,
    names: Sequence[str],
    rows: Sequence[Ids],
    learned: tuple[Sequence[Ids], Texts] | None,
    labels: Sequence[str],
    gold: Places,
) -> None:
    """Print each scheme's row as it is measured; float32's first."""
    head: Head | None = None
    expected: Floats | None = None
    click.echo(
        "| scheme | agreement | margin error | accuracy | ms |\n| --- | --: | --: | --: | --: |"
    )
    for name in names:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "graph.onnx"
            write_scheme(name, subject, file)
            graph = opened(file)
            found = answers(graph, rows)
            if expected is None and learned is not None:
                shots, examples = learned
                known = answers(graph, shots)
                places, fold = examples.places(labels), fold_numbers(examples, labels)
                head = fit_head(known.hidden, places, graph.head, fold).head
        logits = found.logits if head is None else logits_of(head, found.hidden)
        expected = logits if expected is None else expected
        click.echo(line(name, logits, expected, gold, milliseconds(graph, rows)))


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("texts", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--labels", required=True, help="With commas.")
@click.option("--prompt", required=True, help="Or @FILE.")
@click.option("--examples", type=click.Path(path_type=Path, exists=True), help="Fit a head to.")
@click.option("--calibration", type=click.Path(path_type=Path, exists=True))
@click.option("--scheme", "names", multiple=True, type=click.Choice(list(SCHEMES)))
def main(
    checkpoint: Path,
    texts: Path,
    labels: str,
    prompt: str,
    examples: Path | None,
    calibration: Path | None,
    names: tuple[str, ...],
) -> None:
    """Print what each scheme keeps of float32's answers on TEXTS, a file with a label a line."""
    from_file = prompt.startswith("@")
    template = Path(prompt[1:]).read_text("utf-8") if from_file else unescape(prompt)
    spec = BuildSpec(model=str(checkpoint), labels=tuple(labels.split(",")), prompt=template)
    planned = plan(spec)
    seen = read_texts(calibration) if calibration else Texts(tuple(calibration_texts()))
    tokenizer = Tokenizer.from_str(json.dumps(planned.text_tokenizer))

    def encoded(file: Path) -> tuple[list[Ids], Texts]:
        read = read_texts(file)
        encodings = [tokenizer.encode(text, add_special_tokens=False) for text in read.texts]
        return [np.array(it.ids, dtype=np.int64) for it in encodings], read

    rows, gold = encoded(texts)
    learned = encoded(examples) if examples else None
    chosen = [name for name in SCHEMES if name == "fp32" or not names or name in names]
    with tempfile.TemporaryDirectory() as room:
        subject = compiled(planned, seen, Path(room), chosen)
        _table(subject, chosen, rows, learned, spec.labels, gold.places(spec.labels))


if __name__ == "__main__":
    main()
