"""The prompt as a chat model's user turn, written by the tokenizer's own chat template.

The rendering is a prompt template like any other: what stands before the text is compiled, what
stands after it (the end of the turn, and the start of the model's answer) is the suffix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimexport.errors import SpecError

from .few_shot import Shot, turns_of
from .template import PromptTemplate, literal_template
from .tokenizer import transformers_tokenizer

# Characters of the private use area: no template writes them, and none takes them for white space.
_TEXT = "\ue000text\ue001"
_ANSWER = "\ue000answer\ue001"


def wrap_in_chat(
    template: PromptTemplate, system: str | None, directory: Path, shots: Sequence[Shot] = ()
) -> PromptTemplate:
    """The template as the user's turn, with the start of the model's answer behind it.

    Args:
        template: what the user says, with its `{text}`.
        system: what the system turn says, or None for no such turn.
        directory: where the tokenizer is, whose chat template it is.
        shots: examples, each of which becomes two turns before it: what the user said, and the
            answer.

    Raises:
        SpecError: no chat template, one without a system turn although one is asked for, or one
            that does not write the user's turn once as it is, or leaves out earlier turns.
    """
    tokenizer = transformers_tokenizer(directory)
    if not tokenizer.chat_template:
        raise SpecError(
            f"the tokenizer of {directory} has no chat template; drop --chat, or take the "
            "checkpoint that was tuned for chat"
        )
    asked = {"role": "user", "content": template.prefix + _TEXT + template.suffix}
    earlier = turns_of(template, shots)
    turns = [*earlier, asked]
    opened = _render(tokenizer, turns, None, directory)
    if system is not None:
        turns.insert(0, {"role": "system", "content": system})
        opened = _render(tokenizer, turns, system, directory)
    if opened.count(_TEXT) != 1:
        raise SpecError(
            f"the chat template of {directory} writes the user's turn {opened.count(_TEXT)} times "
            "instead of once; drop --chat and write the turns into the prompt"
        )
    if system is not None and system.strip() not in opened:
        raise SpecError(_no_system(directory, "it leaves the text out"))
    _check_earlier(opened.partition(_TEXT)[0], earlier, directory)
    opened += _answer_lead(tokenizer, turns, opened)
    return replace(literal_template(*opened.split(_TEXT)), rendered=True)


def _check_earlier(before: str, earlier: Sequence[dict[str, str]], directory: Path) -> None:
    """Raise SpecError unless every earlier turn is written before the text, in their order."""
    at = 0
    for turn in earlier:
        said = turn["content"].strip()
        found = before.find(said, at)
        if found < 0:
            raise SpecError(
                f"the chat template of {directory} does not write the earlier turn {said!r} as it "
                "is; drop --few-shot, or --chat, and the examples are written into the prompt"
            )
        at = found + len(said)


def _render(tokenizer: Any, turns: list[dict[str, str]], system: str | None, place: Path) -> str:
    """The turns and the start of an answer. A model that thinks before it answers is told not to
    (Qwen3, SmolLM3), for its first token is all that a classifier reads."""
    try:
        return str(
            tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        )
    except Exception as error:  # templates are programs, and raise what they like
        if system is not None:
            raise SpecError(_no_system(place, str(error))) from None
        raise SpecError(
            f"the chat template of {place} cannot be rendered ({error}); drop --chat and write the "
            "turns into the prompt"
        ) from None


def _no_system(directory: Path, why: str) -> str:
    return (
        f"the chat template of {directory} has no system turn ({why}); drop --system and say it "
        "in the prompt"
    )


def _answer_lead(tokenizer: Any, turns: list[dict[str, str]], opened: str) -> str:
    """What the template writes between the start of an answer and its first word: nothing, a space
    in templates that make `[/INST] positive` of it, or a line break that the start lacks."""
    try:
        answer = {"role": "assistant", "content": _ANSWER}
        whole = str(tokenizer.apply_chat_template([*turns, answer], tokenize=False))
    except Exception:
        return ""
    before = whole.partition(_ANSWER)[0]
    lead = before.removeprefix(opened)
    return lead if before.startswith(opened) and not lead.strip() else ""
