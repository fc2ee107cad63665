"""What labels that are read whole cost: a text's time beside the same text's with few labels.

    python benchmarks/whole_labels.py build/banking77 build/two-labels questions.txt

The two bundles are of one model and one prompt. Every round classifies each text alone with one
and then with the other, and all of them at once; medians over the rounds are printed, and ratios of
one round's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import click

from sentences import read_sentences
from trimexport_runtime import Classifier, read_manifest


@click.command()
@click.argument("whole", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("plain", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("texts", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--rounds", default=5, show_default=True)
def main(whole: Path, plain: Path, texts: Path, rounds: int) -> None:
    """Compare WHOLE with PLAIN on TEXTS."""
    given = read_sentences(texts)
    classifiers = {bundle: Classifier.load(bundle) for bundle in (whole, plain)}
    for bundle, classifier in classifiers.items():
        classifier.classify(given)
        labels = len(read_manifest(bundle).labels)
        click.echo(f"{bundle}: {labels} labels, {classifier.variant.name}")
    tokens = [item.tokens for item in classifiers[plain].classify(given)]
    click.echo(f"{len(given)} texts of {statistics.mean(tokens):.1f} tokens")
    for name, measure in {"one at a time": _alone, "all at once": _together}.items():
        found = [[measure(classifiers[it], given) for it in (whole, plain)] for _ in range(rounds)]
        ratio = statistics.median(many / few for many, few in found)
        many, few = (statistics.median(side) for side in zip(*found, strict=True))
        click.echo(f"{name}: {many:.1f} ms a text, {few:.1f} with few labels; ratio {ratio:.2f}")


def _alone(classifier: Classifier, texts: Sequence[str]) -> float:
    """Median milliseconds of a text."""
    times = []
    for text in texts:
        began = time.perf_counter()
        classifier.classify([text])
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def _together(classifier: Classifier, texts: Sequence[str]) -> float:
    """Milliseconds of a text among all."""
    began = time.perf_counter()
    classifier.classify(texts)
    return 1000 * (time.perf_counter() - began) / len(texts)


if __name__ == "__main__":
    main()
