"""How throughput grows with the batch, and which token budget is the best.

    python benchmarks/budgets.py build/gemma-2b-sst2 sst2/test.jsonl

Two tables: texts of one length in batches of 1, 2, 4 ...; and sentences as they come, under token
budgets. Each is measured in rounds whose order rotates; medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from sentences import read_sentences
from trimexport.bench.rounds import rotated
from trimexport_runtime import Classifier, read_manifest
from trimexport_runtime.tokenize import TextEncoder

BATCHES = (1, 2, 4, 8, 16, 32, 64)
BUDGETS = (64, 128, 256, 512, 1024, 2048, 4096)
WIDTH = 22  # tokens: SST-2's mean with Gemma's tokenizer


def medians(keys: Sequence[int], rounds: int, seconds: Callable[[int], float]) -> dict[int, float]:
    """The median of what `seconds` says of each key in all rounds."""
    found: dict[int, list[float]] = {key: [] for key in keys}
    for turn in range(rounds):
        for key in rotated(keys, turn):
            found[key].append(seconds(key))
    return {key: statistics.median(values) for key, values in found.items()}


def timed(classifier: Classifier, texts: list[str]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    classifier.classify(texts)
    return time.perf_counter() - began


def of_width(bundle: Path, texts: list[str], count: int) -> list[str]:
    """`count` texts of `WIDTH` tokens, repeated where there are fewer."""
    encoder = TextEncoder.load(bundle, read_manifest(bundle))
    found = [text for text in texts if len(encoder.encode(text).ids) == WIDTH]
    if not found:
        raise click.ClickException(f"no text has {WIDTH} tokens")
    return (found * count)[:count]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("texts", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--threads", default=2, show_default=True)
@click.option("--sentences", default=128, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(bundle: Path, texts: Path, threads: int, sentences: int, rounds: int) -> None:
    """Measure BUNDLE on TEXTS, a file of JSON lines with a key `text`."""
    known = read_sentences(texts)
    same = of_width(bundle, known, BATCHES[-1])

    def load(budget: int) -> Classifier:
        classifier = Classifier.load(bundle, threads=threads, token_budget=budget)
        classifier.classify(same[:2])
        return classifier

    one = load(BATCHES[-1] * WIDTH)
    grown = medians(BATCHES, rounds, lambda count: timed(one, same[:count]))
    for count, seconds in grown.items():
        click.echo(f"batch of {count:3}: {count / seconds:8.2f} texts/s")
    mixed = known[:sentences]
    for budget, seconds in medians(BUDGETS, rounds, lambda it: timed(load(it), mixed)).items():
        click.echo(f"budget of {budget:4} tokens: {len(mixed) / seconds:8.2f} texts/s")


if __name__ == "__main__":
    main()
