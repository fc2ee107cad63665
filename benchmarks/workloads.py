"""The prompts and texts that the peers are compared on."""

from __future__ import annotations

import itertools
import json
import random
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from tokenizers import Tokenizer

RECIPE = Path(__file__).resolve().parents[1] / "models" / "sst2-gemma-2b.toml"
TEXT = "{text}"
ZERO_SHOT, FEW_SHOT = "zero-shot", "16-shot"
SHOTS, SHOT_TOKENS = 16, 28  # the prompt of 16 answered sentences is about 600 tokens
SENTENCES, SENTENCE_TOKENS = 2, 22  # SST-2's mean with Gemma's tokenizer
SHAPES = ("1x16", "1x48", "1x128", "16x48")  # texts x tokens of each
SEED = 0


@dataclass(frozen=True)
class Workload:
    """Texts that every peer classifies in each round.

    `prompt` names the prompt and `batch` the most texts that run together; None leaves that to
    each peer, at its best. Texts with their right labels, `gold`, are classified once: they say how
    exact a peer is, not how fast.
    """

    name: str
    prompt: str
    texts: tuple[str, ...]
    batch: int | None
    gold: tuple[str, ...] = ()


@dataclass(frozen=True)
class Texts:
    """The sentences of a data set, and how many tokens each is after the prompt."""

    rows: list[dict[str, str]]
    tokenizer: Tokenizer

    def tokens(self, text: str) -> int:
        """The text's own tokens: a space stands between the prompt and the text."""
        return len(self.tokenizer.encode(" " + text, add_special_tokens=False).ids)

    def of_length(self, tokens: int, count: int) -> tuple[str, ...]:
        """The first `count` sentences of exactly so many tokens."""
        fitting = (row["text"] for row in self.rows if self.tokens(row["text"]) == tokens)
        found = tuple(itertools.islice(fitting, count))
        if len(found) < count:
            raise click.ClickException(f"fewer than {count} sentences have {tokens} tokens")
        return found

    def composed(self, tokens: int, count: int) -> tuple[str, ...]:
        """`count` texts of exactly so many tokens, written with the sentences' words."""
        words = itertools.chain.from_iterable(row["text"].split() for row in self.rows)
        return tuple(self._compose(words, tokens) for _ in range(count))

    def _compose(self, words: Iterator[str], tokens: int) -> str:
        text = next(words)
        while self.tokens(text) < tokens:
            longer = f"{text} {next(words)}"
            text = longer if self.tokens(longer) <= tokens else text
        return text


def read_texts(file: Path, tokenizer: Path) -> Texts:
    """The rows {"text", "label"} of a file of JSON lines."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return Texts(rows, Tokenizer.from_file(str(tokenizer)))


def prompts(train: Texts) -> dict[str, str]:
    """The zero-shot prompt of the recipe, and the same with answered examples before the text."""
    template: str = tomllib.loads(RECIPE.read_text(encoding="utf-8"))["prompt"]
    task, _, question = template.partition("\n")
    shots = [question.replace(TEXT, row["text"]) + " " + row["label"] for row in examples(train)]
    return {ZERO_SHOT: template, FEW_SHOT: "\n\n".join([task, *shots, question])}


def examples(train: Texts) -> list[dict[str, str]]:
    """Sentences of about the length that makes the prompt as long as it should be, drawn with a
    seed, as many of each label and in turn."""
    mixed = random.Random(SEED).sample(train.rows, len(train.rows))
    near = [row for row in mixed if abs(train.tokens(row["text"]) - SHOT_TOKENS) <= 2]
    labels = sorted({row["label"] for row in near})
    by_label = [[row for row in near if row["label"] == label] for label in labels]
    turns = itertools.chain.from_iterable(zip(*by_label, strict=False))
    return list(itertools.islice(turns, SHOTS))


def recipe_prompt(recipe: Path) -> dict[str, str]:
    """The prompt of a recipe, called as its file is."""
    return {recipe.stem: tomllib.loads(recipe.read_text(encoding="utf-8"))["prompt"]}


def labelled(test: Texts, count: int, prompt: str) -> Workload:
    """So many sentences with their labels, drawn with a seed.

    Raises:
        ClickException: there are fewer.
    """
    if count > len(test.rows):
        raise click.ClickException(f"there are {len(test.rows)} labelled sentences, not {count}")
    rows = random.Random(SEED).sample(test.rows, count)
    texts, gold = (tuple(row[key] for row in rows) for key in ("text", "label"))
    return Workload(f"{count} labelled sentences", prompt, texts, None, gold)


def workloads(
    test: Texts, sentences: int, named: Sequence[str], prompts: Sequence[str]
) -> list[Workload]:
    """What is timed: one sentence with each prompt, and with the first of them fixed shapes and
    many sentences."""
    first, *others = prompts
    pairs = [tuple(map(int, name.split("x"))) for name in named]
    one = test.of_length(SENTENCE_TOKENS, SENTENCES)
    many = tuple(row["text"] for row in test.rows[:sentences])
    shapes = [
        Workload(f"{count}x{tokens} tokens", first, test.composed(tokens, count), count)
        for count, tokens in pairs
    ]
    return [
        Workload("one sentence", first, one, 1),
        *shapes,
        Workload(f"{len(many)} sentences", first, many, None),
        *(Workload(f"one sentence, {name} prompt", name, one, 1) for name in others),
    ]
