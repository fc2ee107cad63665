"""Examples in the prompt: their choice, and how they are written.

The prompt is compiled, so examples in it cost no time per text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trimexport.errors import SpecError
from trimexport.records import one_line
from trimexport.spec import BuildSpec
from trimexport.texts import Texts, labelled_texts

from .template import PromptTemplate, filled, literal_template

if TYPE_CHECKING:  # wrong examples are refused without loading transformers
    from .tokenizer import SourceTokenizer

_BETWEEN = "\n\n"


@dataclass(frozen=True)
class Shot:
    """An example: a text, and the word that stands for its label."""

    text: str
    word: str


def choose_shots(spec: BuildSpec) -> tuple[Shot, ...]:
    """The spec's examples, `spec.shots` of each label, in the order in which they are written;
    none if it names no file of examples.

    A text that stands in the file several times counts once, and a text with two different labels
    is never taken. Choice and order follow from hashes of the seed and each text, so they do not
    depend on the order of the file, and a larger number of shots takes the same examples and
    further ones.

    Raises:
        SpecError: the file cannot be read, has a label that is none of the spec's, or too few
            examples of one.
    """
    if spec.few_shot is None or spec.shots is None:
        return ()
    texts_of = _texts_by_label(labelled_texts(spec.few_shot, spec.labels), spec.labels)
    shots = []
    for label, texts in texts_of.items():
        if len(texts) < spec.shots:
            raise SpecError(
                f'{spec.few_shot} has {len(texts)} different texts of label "{label}", and '
                f"{spec.shots} of each label are asked for; add some, or lower --shots"
            )
        word = spec.verbalizers.get(label, (label,))[0]
        chosen = sorted(texts, key=lambda text: _rank(spec.seed, "choice", text))[: spec.shots]
        shots += [Shot(text, word) for text in chosen]
    return tuple(sorted(shots, key=lambda shot: _rank(spec.seed, "order", shot.text)))


def _texts_by_label(examples: Texts, labels: Sequence[str]) -> dict[str, set[str]]:
    """The different texts of each label, without texts that have several labels."""
    texts_of: dict[str, set[str]] = {label: set() for label in labels}
    for text, label in zip(examples.texts, examples.gold or (), strict=True):
        texts_of[label].add(one_line(text))
    return {
        label: texts.difference(*(texts_of[other] for other in labels if other != label))
        for label, texts in texts_of.items()
    }


def _rank(seed: int, use: str, text: str) -> bytes:
    """The key by which texts are sorted into a random order, the same on every machine.

    Args:
        use: names the order, so that one seed gives several.
    """
    return hashlib.sha256(f"{seed}\0{use}\0{text}".encode()).digest()


def write_shots(template: PromptTemplate, shots: Sequence[Shot]) -> PromptTemplate:
    """The template with the examples before it, a blank line behind each. An example is written as
    the template itself, with its text and its word."""
    if not shots:
        return template
    ending = template.suffix.rstrip(" ")
    examples = [
        template.prefix + shot.text + ending + _answer(template, shot.word) for shot in shots
    ]
    prefix = _BETWEEN.join([*examples, template.prefix])
    whole = literal_template((prefix, template.suffix), template.fields)
    return replace(whole, lead=template.lead)


def _answer(template: PromptTemplate, word: str) -> str:
    """A word with the white space before it, as `PromptTemplate.label_lead` has it."""
    return word if word.startswith(" ") else template.label_lead + word


def turns_of(template: PromptTemplate, shots: Sequence[Shot]) -> list[dict[str, str]]:
    """The examples as turns of a chat: the template with the text from the user, and the word from
    the assistant."""
    return [
        turn
        for shot in shots
        for turn in (
            {"role": "user", "content": filled(template, [shot.text])},
            {"role": "assistant", "content": shot.word.strip()},
        )
    ]


def refuse_control(
    shots: Sequence[Shot], tokenizer: SourceTokenizer, control: Container[int]
) -> None:
    """Raise SpecError if an example holds a control token, which would take effect in a prompt.

    Args:
        control: ids of added tokens that are control tokens besides those marked special.
    """
    added = tokenizer.definition["added_tokens"]
    tokens = [own["content"] for own in added if own["special"] or own["id"] in control]
    for shot in shots:
        if inside := [token for token in tokens if token in shot.text]:
            raise SpecError(
                f"the example {shot.text!r} holds {inside[0]}, a control token of the model; leave "
                "it out of the examples"
            )
