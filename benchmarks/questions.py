"""What several questions in one pass cost, beside one question alone.

    python benchmarks/questions.py CHECKPOINT WORK --questions 8 --tokens 12 --text-tokens 128
    python benchmarks/questions.py CHECKPOINT WORK --recipe models/guard-policies-gemma3-270m.toml

Two bundles of one checkpoint are kept in WORK, and made again only where they are missing: of one
question and of several, each of so many tokens of its own, or of the first of a recipe's and all of
them. Every round classifies one text of so many tokens with the one bundle and then with the other;
medians over the rounds are printed, and the median of one round's ratios. As many passes as there
are questions would take that many times one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from trimexport import BuildSpec, QuestionSpec, Texts, build, plan
from trimexport.bench.machine import this_machine
from trimexport.bundle.question_heads import tree_of_bundle
from trimexport.spec import read_recipe
from trimexport_runtime import Classifier, read_manifest
from trimexport_runtime.tokenize import Encoded

PROMPT = "Text: {text}\n\n{question}\nAnswer:"
WORDS = (
    *("good", "bad", "new", "old", "long", "short", "fast", "slow"),
    *("funny", "sad", "dark", "cold", "great", "true", "big", "small"),
)


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--questions", "count", default=8, show_default=True)
@click.option("--tokens", default=12, show_default=True, help="Of each question, with its end.")
@click.option("--text-tokens", default=128, show_default=True)
@click.option("--labels", default="no,yes", show_default=True)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path, exists=True),
    help="Its questions instead, behind its prompt.",
)
@click.option("--precision", default="int8", show_default=True)
@click.option("--rounds", default=21, show_default=True)
def main(
    checkpoint: Path,
    work: Path,
    count: int,
    tokens: int,
    text_tokens: int,
    labels: str,
    recipe: Path | None,
    precision: str,
    rounds: int,
) -> None:
    """Compare one question and several, asked of CHECKPOINT."""
    machine = this_machine()
    click.echo(f"{machine.processor}, {machine.cores} cores")
    bundles = [work / "one", work / "several"]
    if not all(bundle.exists() for bundle in bundles):
        model, precisions = str(checkpoint), (precision,)
        if recipe is None:
            named = tuple(labels.split(","))
            spec = BuildSpec(model=model, labels=named, prompt=PROMPT, precision=precisions)
            spec = replace(spec, questions=questions_of(spec, WORDS[:count], tokens))
        else:
            spec = replace(read_recipe(recipe), model=model, tokenizer=None, precision=precisions)
        build_missing(replace(spec, questions=spec.questions[:1]), bundles[0])
        build_missing(spec, bundles[1])
    loaded = [_loaded(bundle) for bundle in bundles]
    ids = np.random.default_rng(0).integers(300, 400, text_tokens)
    text = Encoded(ids.astype(np.int64), False)
    for classifier in loaded:
        classifier.run([text])
    found = [[_milliseconds(classifier, text) for classifier in loaded] for _ in range(rounds)]
    one, several = (statistics.median(side) for side in zip(*found, strict=True))
    ratio = statistics.median(many / few for few, many in found)
    click.echo(
        f"{text_tokens} tokens of text, {loaded[0].variant.name}: one question {one:.2f} ms, "
        f"{len(loaded[1].manifest.questions)} questions {several:.2f} ms; ratio {ratio:.2f}"
    )


def questions_of(spec: BuildSpec, words: Sequence[str], tokens: int) -> tuple[QuestionSpec, ...]:
    """A question with each word whose suffix is so many tokens, by repeating a word at its end. One
    plan tokenises all that may be meant, for a plan of a large vocabulary takes seconds.

    Raises:
        click.ClickException: a word has none of so many tokens.
    """
    meant = [
        QuestionSpec(word, f"Is it {word}{' so' * more}?")
        for word in words
        for more in range(tokens)
    ]
    named = tuple(replace(it, name=f"{place}") for place, it in enumerate(meant))
    planned = plan(replace(spec, questions=named))
    found = {
        it.name: it
        for it, asked in zip(meant, planned.asked, strict=True)
        if len(asked.prompt.suffix_ids) == tokens
    }
    if lacking := [word for word in words if word not in found]:
        raise click.ClickException(
            f"no question with {', '.join(lacking)} is {tokens} tokens with what ends it; give "
            "another number of --tokens"
        )
    return tuple(found.values())


def build_missing(spec: BuildSpec, bundle: Path) -> None:
    """Build a bundle unless it is there; its texts only have to be some."""
    if not bundle.exists():
        build(spec, bundle, sample=Texts(("some text",)), keep=spec.precision)


def _loaded(bundle: Path) -> Classifier:
    """A bundle that is there, loaded."""
    manifest = read_manifest(bundle)
    tree = tree_of_bundle(manifest)
    behind = len(tree.trunk) + len(tree.trie.token_ids)
    click.echo(f"{len(manifest.questions)} questions: {behind} tokens behind the text")
    return Classifier.load(bundle)


def _milliseconds(classifier: Classifier, text: Encoded) -> float:
    began = time.perf_counter()
    classifier.run([text])
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    main()
