"""A question of a build that asks several about each text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from trimexport.errors import SpecError

from .toml_values import is_text, is_texts, is_words, read_words

_RESERVED = re.compile(r"[:;,={}]|\s{2,}|[^\S ]")
"""What a name would not be told apart by: `name: label`, `name="text"`, lists of names."""


@dataclass(frozen=True)
class QuestionSpec:
    """One of the questions that are asked about each text in the same pass.

    Args:
        name: by which its answer is called.
        text: what stands in the prompt's `{question}`.
        labels: its answers, in the order of its logits; None takes the build's.
        verbalizers: label -> words, for labels that do not stand for themselves here; for the
            others the build's words are taken.
    """

    name: str
    text: str
    labels: tuple[str, ...] | None = None
    verbalizers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name != self.name.strip() or not self.name:
            raise SpecError(
                f"the name {self.name!r} of a question is empty or has spaces around it; give it "
                "one such as toxic"
            )
        if found := _RESERVED.search(self.name):
            raise SpecError(
                f"the name {self.name!r} of a question has {found[0]!r} in it, which stands beside "
                "names elsewhere; write it with letters, digits, - and _"
            )
        if self.text != self.text.strip() or not self.text:
            raise SpecError(
                f'the text {self.text!r} of question "{self.name}" is empty or has white space '
                "around it; write the white space into the prompt, around {question}"
            )
        for label, words in self.verbalizers.items():
            if not words:
                raise SpecError(
                    f'label "{label}" of question "{self.name}" is given no words; name one at '
                    "least, or leave it out of the verbalizers and its own name stands for it"
                )


def check_questions(questions: Sequence[QuestionSpec], score: str, softmax: str) -> None:
    """Raise SpecError for two questions of one name, and for questions with another score than
    `softmax`."""
    names = [question.name for question in questions]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SpecError(
            f'question "{twice[0]}" is given {names.count(twice[0])} times; give each a name of '
            "its own"
        )
    if questions and score != softmax:
        raise SpecError(
            f"the score is {score}, and the answer to each of several questions is a {softmax} "
            "over its labels; drop the score, or build a bundle for one question without "
            "{question}"
        )


def parse_questions(items: Sequence[str]) -> tuple[QuestionSpec, ...]:
    """The questions of items such as `toxic=Is it insulting?`.

    Raises:
        SpecError: no `=`, or a name or text that is none.
    """
    questions = []
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name.strip() or not text.strip():
            raise SpecError(f'--question {item!r} has no name and text; write name="text"')
        questions.append(QuestionSpec(name.strip(), text.strip()))
    return tuple(questions)


def is_questions(value: object) -> bool:
    """Whether a recipe's value is a table of questions: each a text, or a table with the fields of
    a `QuestionSpec` but its name."""
    return isinstance(value, dict) and all(is_text(it) or _is_question(it) for it in value.values())


def _is_question(value: object) -> bool:
    known = {each.name for each in fields(QuestionSpec)} - {"name"}
    return (
        isinstance(value, dict)
        and set(value) <= known
        and is_text(value.get("text"))
        and is_texts(value.get("labels", []))
        and is_words(value.get("verbalizers", {}))
    )


def read_questions(table: Mapping[str, Any]) -> tuple[QuestionSpec, ...]:
    """The questions of a recipe's table, for which `is_questions` is true."""
    tables = {name: {"text": own} if is_text(own) else own for name, own in table.items()}
    return tuple(
        QuestionSpec(
            name=name.strip(),
            text=own["text"].strip(),
            labels=tuple(own["labels"]) if "labels" in own else None,
            verbalizers=read_words(own.get("verbalizers", {})),
        )
        for name, own in tables.items()
    )
