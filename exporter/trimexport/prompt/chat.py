"""The prompt as a chat model's user turn, written by the tokenizer's own chat template.

The rendering is a prompt template like any other: its part before the text is the prefix, and its
part after the text (the end of the turn, and the start of the model's answer) is the suffix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimexport.errors import SpecError, reason_of

from .few_shot import Shot, turns_of
from .template import PromptTemplate, filled, literal_template
from .tokenizer import transformers_tokenizer

# Placeholders in characters of the private use area, which no template writes, strips or replaces.
_ANSWER = "\ue000answer\ue001"


def wrap_in_chat(
    template: PromptTemplate, system: str | None, directory: Path, shots: Sequence[Shot] = ()
) -> PromptTemplate:
    """The template as the user's turn, with the start of the model's answer behind it.

    Args:
        template: the user's words, with their fields.
        system: the content of the system turn, or None for no such turn.
        directory: where the tokenizer is that has the chat template.
        shots: examples, each of which becomes two turns before the user's: the example in the
            user's words, and the answer.

    Raises:
        SpecError: there is no chat template, it has no system turn although `system` is given, it
            does not write the user's turn exactly once, or it leaves out earlier turns.
    """
    tokenizer = transformers_tokenizer(directory)
    if not tokenizer.chat_template:
        raise SpecError(
            f"the tokenizer of {directory} has no chat template; drop --chat, or take the "
            "checkpoint that was tuned for chat"
        )
    places = [f"\ue000{field.name}\ue001" for field in template.fields]
    asked = {"role": "user", "content": filled(template, places)}
    earlier = turns_of(template, shots)
    turns = [*earlier, asked]
    rendering = _render(tokenizer, turns, None, directory)
    if system is not None:
        turns.insert(0, {"role": "system", "content": system})
        rendering = _render(tokenizer, turns, system, directory)
    if (count := rendering.count(places[0])) != 1:
        raise SpecError(
            f"the chat template of {directory} writes the user's turn {count} times instead of "
            "once; drop --chat and write the turns into the prompt"
        )
    if system is not None and system.strip() not in rendering:
        raise SpecError(_no_system(directory, "it leaves the text out"))
    _check_earlier(rendering.partition(places[0])[0], earlier, directory)
    rendering += _answer_lead(tokenizer, turns, rendering)
    parts = re.split("|".join(places), rendering)
    whole = literal_template(parts, template.fields)
    return replace(whole, rendered=True, lead=template.lead)


def _check_earlier(before: str, earlier: Sequence[dict[str, str]], directory: Path) -> None:
    """Raise SpecError unless `before`, the rendering up to the text, has every earlier turn, in
    their order."""
    end = 0
    for turn in earlier:
        content = turn["content"].strip()
        start = before.find(content, end)
        if start < 0:
            raise SpecError(
                f"the chat template of {directory} does not write the earlier turn {content!r} as "
                "it is; drop --few-shot, or --chat, and the examples are written into the prompt"
            )
        end = start + len(content)


def _render(tokenizer: Any, turns: list[dict[str, str]], system: str | None, place: Path) -> str:
    """The turns and the start of an answer, as the chat template writes them.

    Thinking is switched off in models that think before they answer (Qwen3, SmolLM3): a classifier
    reads the first token of the answer.

    Raises:
        SpecError: the template fails.
    """
    try:
        return str(
            tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        )
    except Exception as error:  # a template is a program, which may raise anything
        if system is not None:
            raise SpecError(_no_system(place, reason_of(error))) from None
        raise SpecError(
            f"the chat template of {place} cannot be rendered ({reason_of(error)}); drop --chat "
            "and write the turns into the prompt"
        ) from None


def _no_system(directory: Path, why: str) -> str:
    """The message for a chat template without a system turn."""
    return (
        f"the chat template of {directory} has no system turn ({why}); drop --system and say it "
        "in the prompt"
    )


def _answer_lead(tokenizer: Any, turns: list[dict[str, str]], rendering: str) -> str:
    """The white space that the template writes between the end of `rendering`, which is the start
    of an answer, and the answer's first word: none, a space (`[/INST] positive`) or a line break.
    """
    try:
        answer = {"role": "assistant", "content": _ANSWER}
        whole = str(tokenizer.apply_chat_template([*turns, answer], tokenize=False))
    except Exception:
        return ""
    before = whole.partition(_ANSWER)[0]
    lead = before.removeprefix(rendering)
    return lead if before.startswith(rendering) and not lead.strip() else ""
