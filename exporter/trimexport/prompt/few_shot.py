"""Examples in the prompt: which ones, and how they are written.

A prompt is compiled, so examples in it cost no time per text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimexport.errors import SpecError
from trimexport.spec import BuildSpec
from trimexport.texts import Texts, labelled_texts

from .template import PromptTemplate, literal_template

if TYPE_CHECKING:  # wrong examples are refused without loading transformers
    from .tokenizer import SourceTokenizer

_BETWEEN = "\n\n"


@dataclass(frozen=True)
class Shot:
    """An example: a text, and the word that stands for its label."""

    text: str
    word: str


def choose_shots(spec: BuildSpec) -> tuple[Shot, ...]:
    """The examples that the spec names, in the order in which they are written; none without a
    file.

    Of each label `spec.shots` are taken. A text that stands in the file several times counts once,
    and one with two different labels not at all. Choice and order follow from hashes of the seed
    and each text: they do not depend on the order of the file, and with more shots the same
    examples are taken and others besides.

    Raises:
        SpecError: the file cannot be read, has a label that is none of the spec's, or too few
            examples of one.
    """
    if spec.few_shot is None or spec.shots is None:
        return ()
    found = _by_label(labelled_texts(spec.few_shot, spec.labels), spec.labels)
    shots = []
    for label, texts in found.items():
        if len(texts) < spec.shots:
            raise SpecError(
                f'{spec.few_shot} has {len(texts)} different texts of label "{label}", and '
                f"{spec.shots} of each label are asked for; add some, or lower --shots"
            )
        word = spec.verbalizers.get(label, (label,))[0]
        chosen = sorted(texts, key=lambda text: _rank(spec.seed, "choice", text))[: spec.shots]
        shots += [Shot(text, word) for text in chosen]
    return tuple(sorted(shots, key=lambda shot: _rank(spec.seed, "order", shot.text)))


def _by_label(given: Texts, labels: Sequence[str]) -> dict[str, set[str]]:
    """The different texts of each label, without those that have several."""
    found: dict[str, set[str]] = {label: set() for label in labels}
    for text, label in zip(given.texts, given.gold or (), strict=True):
        found[label].add(text)
    return {
        label: texts.difference(*(found[other] for other in labels if other != label))
        for label, texts in found.items()
    }


def _rank(seed: int, use: str, text: str) -> bytes:
    """A text's place in an order that the seed mixes: the same with every Python and machine."""
    return hashlib.sha256(f"{seed}\0{use}\0{text}".encode()).digest()


def write_shots(template: PromptTemplate, shots: Sequence[Shot]) -> PromptTemplate:
    """The template with the examples before it, each as the template itself with text and word,
    and a blank line between them."""
    if not shots:
        return template
    ending = template.suffix.rstrip(" ")
    written = [template.prefix + it.text + ending + _answer(template, it.word) for it in shots]
    return literal_template(_BETWEEN.join([*written, template.prefix]), template.suffix)


def _answer(template: PromptTemplate, word: str) -> str:
    """A word with the space that stands before it: see `PromptTemplate.label_lead`."""
    return word if word.startswith(" ") else template.label_lead + word


def turns_of(template: PromptTemplate, shots: Sequence[Shot]) -> list[dict[str, str]]:
    """The examples as turns of a chat: what the user says, and the one word of the answer."""
    return [
        turn
        for it in shots
        for turn in (
            {"role": "user", "content": template.prefix + it.text + template.suffix},
            {"role": "assistant", "content": it.word.strip()},
        )
    ]


def refuse_control(
    shots: Sequence[Shot], tokenizer: SourceTokenizer, control: Container[int]
) -> None:
    """Raise SpecError where an example holds a control token, which would work in a prompt: one
    that is marked special, or of `control`."""
    added = tokenizer.definition["added_tokens"]
    steering = [it["content"] for it in added if it["special"] or it["id"] in control]
    for shot in shots:
        if inside := [token for token in steering if token in shot.text]:
            raise SpecError(
                f"the example {shot.text!r} holds {inside[0]}, a control token of the model; leave "
                "it out of the examples"
            )
