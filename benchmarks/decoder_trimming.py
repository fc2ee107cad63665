"""The two experiments of decoder trimming (Thomas 2024), on whole test splits: one is a command.

    python benchmarks/decoder_trimming.py sst2 CHECKPOINT --data DATA --prompt @sst2-8shot.txt
    python benchmarks/decoder_trimming.py agnews CHECKPOINT --data DATA --prompt @agnews-12shot.txt

prints, for the model behind a prompt and in each `--precision`, what a test split's texts get from

- the prompt alone;
- the same, calibrated on training texts whose labels are not looked at, as `trimexport calibrate`
  does without a prior;
- a head fitted to those texts, as `trimexport fit` does, on what the first precision makes of them;

with 16 and with 64 training texts of each label, in five draws each. The columns are accuracy (mean
and standard deviation over the draws); and against the first precision the difference in accuracy,
the share of texts with the same label, every flip counted, and the margin error (see
`real_int8.py`), for draws their means.

DATA has `sst2/train.jsonl`, `sst2/test.jsonl` and the same of `agnews`. What the graphs make of the
texts is kept in `--cache`, so that a run that was cut off goes on; it knows the checkpoint, the
prompt, the precision and the texts, and not the program: give another directory after a change.
Choose prompts on other texts than the test split's.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from tokenizers import Tokenizer

from real_int8 import Answers, Ids, answers, milliseconds, opened
from schemes import AS_BUILT, SCHEMES, compiled, write_scheme
from trimexport import BuildSpec, Texts
from trimexport.bundle.written_head import Head
from trimexport.numerics import Floats, Places, margin_error
from trimexport.planning import Plan, plan
from trimexport.prompt.template import unescape
from trimexport.source.shipped import calibration_texts
from trimexport.spec import parse_verbalizers
from trimexport.texts import read_texts
from trimexport.tuning.bias_methods import even_out
from trimexport.tuning.examples import drawn_places, fold_numbers, subset
from trimexport.tuning.regression import fit_head, logits_of

SHOTS = (16, 64)
DRAWS = 5
CHUNK = 512  # texts of a file of the cache


@dataclass(frozen=True)
class Task:
    """Labels, and the files of training texts and of a split's."""

    labels: tuple[str, ...]
    train: str
    splits: str


TASKS = {
    "sst2": Task(("positive", "negative"), "sst2/train.jsonl", "sst2/{}.jsonl"),
    "agnews": Task(
        ("World", "Sports", "Business", "Sci/Tech"),
        "agnews/train_title_desc.jsonl",
        "agnews/{}.jsonl",
    ),
}


@dataclass(frozen=True)
class Draw:
    """Some of the examples: their places, their labels' places and the fold that each is in."""

    places: Places
    gold: Places
    fold: Places


@dataclass(frozen=True)
class Made:
    """What a precision makes of texts; the graph's own head; and the processor's milliseconds for a
    text."""

    answers: Answers
    head: Head
    milliseconds: float


def draws_of(
    train: Texts, test: Texts, prompt: str, labels: Sequence[str]
) -> tuple[Texts, dict[int, list[Draw]]]:
    """Draw examples, none of which stands in the prompt or is scored on.

    Returns:
        the training texts that a draw has; and shots -> draws among them.
    """
    scored = set(test.texts)
    pairs = dict(zip(train.texts, train.gold or (), strict=True))
    kept = {
        text: it for text, it in pairs.items() if text not in scored and str(text) not in prompt
    }
    pool = Texts(tuple(kept), tuple(kept.values()))
    places = {
        shots: [drawn_places(pool, labels, shots, seed) for seed in range(DRAWS)] for shots in SHOTS
    }
    used = np.unique(np.concatenate([each for some in places.values() for each in some]))
    examples = subset(pool, used)

    def draw(each: Places) -> Draw:
        here = np.searchsorted(used, each)
        drawn = subset(examples, here)
        return Draw(here, drawn.places(labels), fold_numbers(drawn, labels))

    return examples, {shots: [draw(each) for each in some] for shots, some in places.items()}


def made(planned: Plan, precision: str, given: Texts, calibration: Texts, cache: Path) -> Made:
    """Take what a precision makes of texts out of the cache, and let its graph make what is not
    there."""
    texts = [str(text) for text in given.texts]
    chunks = [tuple(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
    about: list[object] = [
        str(planned.checkpoint.directory),
        planned.spec.prompt,
        planned.labels,
        precision,
    ]
    if planned.spec.verbalizers:
        about.append(sorted(planned.spec.verbalizers.items()))
    if SCHEMES[AS_BUILT[precision]].calibrated:
        about.append(calibration.texts)
    files = [_file(cache, *about, chunk) for chunk in chunks]
    whole = _file(cache, *about)
    if not all(file.exists() for file in (*files, whole)):
        _make(planned, precision, calibration, dict(zip(files, chunks, strict=True)), whole)
    parts = [np.load(file) for file in files]
    hidden, logits = (
        np.concatenate([part[name] for part in parts]).astype(np.float64)
        for name in ("hidden", "logits")
    )
    known = np.load(whole)
    head = Head(known["weight"], known["bias"])
    return Made(Answers(hidden, logits), head, float(known["milliseconds"]))


def _file(cache: Path, *about: object) -> Path:
    return cache / f"{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]}.npz"


def _make(
    planned: Plan,
    precision: str,
    calibration: Texts,
    chunks: Mapping[Path, Sequence[str]],
    whole: Path,
) -> None:
    """Write a graph, and what it makes of the chunks that have no file; and of the graph the head
    and the time for a text."""
    scheme = AS_BUILT[precision]
    tokenizer = Tokenizer.from_str(json.dumps(planned.text_tokenizer))

    def encoded(texts: Sequence[str]) -> list[Ids]:
        every = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        return [np.array(each.ids, dtype=np.int64) for each in every]

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "graph.onnx"
        write_scheme(scheme, compiled(planned, calibration, Path(directory), [scheme]), path)
        graph = opened(path)
        missing = {file: texts for file, texts in chunks.items() if not file.exists()}
        for number, (file, texts) in enumerate(missing.items(), start=1):
            found = answers(graph, encoded(texts))
            _save(file, hidden=found.hidden.astype(np.float32), logits=found.logits)
            click.echo(f"{precision}: {number} of {len(missing)} parts", err=True)
        spent = milliseconds(graph, encoded(next(iter(chunks.values()))))
        _save(whole, weight=graph.head.weight, bias=graph.head.bias, milliseconds=np.array(spent))


def _save(file: Path, **arrays: Any) -> None:
    """Write a file of the cache, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part.npz")
    np.savez(part, **arrays)
    part.replace(file)


def ways(
    of: Sequence[Made], examples: Answers, shots: Mapping[int, Sequence[Draw]]
) -> Iterator[tuple[str, list[list[Floats]]]]:
    """Each way to classify, and the logits that it gives: by precision and by draw."""
    yield "prompt alone", [[each.answers.logits] for each in of]
    for count, draws in shots.items():
        biases = [even_out(examples.logits[draw.places]) for draw in draws]
        calibrated = [[each.answers.logits + bias for bias in biases] for each in of]
        yield f"calibrated on {count} a label, labels not used", calibrated
    for count, draws in shots.items():
        heads = [
            fit_head(examples.hidden[draw.places], draw.gold, of[0].head, draw.fold).head
            for draw in draws
        ]
        fitted = [[logits_of(head, each.answers.hidden) for head in heads] for each in of]
        yield f"head fitted on {count} a label", fitted


def line(
    way: str, precision: str, found: Sequence[Floats], expected: Sequence[Floats], gold: Places
) -> str:
    """A row of the table."""
    right = np.array([(each.argmax(1) == gold).mean() for each in found])
    first = np.array([(each.argmax(1) == gold).mean() for each in expected])
    pairs = list(zip(found, expected, strict=True))
    same = np.mean([(a.argmax(1) == b.argmax(1)).mean() for a, b in pairs])
    error = np.mean([margin_error(a, b) for a, b in pairs])
    spread = f" (sd {100 * right.std(ddof=1):.2f})" if len(right) > 1 else ""
    difference = 100 * (right.mean() - first.mean())
    return (
        f"| {way} | {precision} | {right.mean():.2%}{spread} | {difference:+.2f} | {same:.2%} | "
        f"{error:.3f} |"
    )


@click.command()
@click.argument("task", type=click.Choice(list(TASKS)))
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--prompt", required=True, help="Or @FILE.")
@click.option("--verbalize", multiple=True, metavar="LABEL=WORDS", help="As of a build.")
@click.option("--split", default="test", show_default=True)
@click.option("--first", type=int, help="Only so many texts of the split.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(list(AS_BUILT)),
    default=("fp32", "int8"),
)
@click.option("--calibration", type=click.Path(path_type=Path, exists=True))
@click.option("--cache", type=click.Path(path_type=Path), default=Path("build/decoder-trimming"))
def main(
    task: str,
    checkpoint: Path,
    data: Path,
    prompt: str,
    verbalize: tuple[str, ...],
    split: str,
    first: int | None,
    precisions: tuple[str, ...],
    calibration: Path | None,
    cache: Path,
) -> None:
    """Print what CHECKPOINT makes of a split of TASK."""
    kind = TASKS[task]
    from_file = prompt.startswith("@")
    template = Path(prompt[1:]).read_text("utf-8") if from_file else unescape(prompt)
    words = parse_verbalizers(verbalize)
    spec = BuildSpec(model=str(checkpoint), labels=kind.labels, prompt=template, verbalizers=words)
    planned = plan(spec)
    read = read_texts(data / kind.splits.format(split))
    test = subset(read, np.arange(len(read.texts))[:first])
    examples, shots = draws_of(read_texts(data / kind.train), read, template, kind.labels)
    seen = read_texts(calibration) if calibration else Texts(tuple(calibration_texts()))
    of = [made(planned, name, test, seen, cache) for name in precisions]
    learned = made(planned, precisions[0], examples, seen, cache).answers
    times = ", ".join(f"{n} {it.milliseconds:.1f} ms" for n, it in zip(precisions, of, strict=True))
    click.echo(f"{len(test.texts):,} texts of {task}'s {split} split; a text takes {times}\n")
    click.echo("| way | precision | accuracy | difference | agreement | margin error |")
    click.echo("| --- | --- | --: | --: | --: | --: |")
    gold = test.places(kind.labels)
    for way, found in ways(of, learned, shots):
        for precision, logits in zip(precisions, found, strict=True):
            click.echo(line(way, precision, logits, found[0], gold))


if __name__ == "__main__":
    main()
