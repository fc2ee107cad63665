"""The prompts and the notice that `prompts.toml` beside a checkpoint gives."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimexport.errors import CheckpointError, SpecError

PROMPTS = "prompts.toml"


def prompt_for(directory: Path, labels: Sequence[str]) -> str:
    """The prompt template that the checkpoint's card gives for exactly these labels.

    Raises:
        SpecError: it gives none for them.
        CheckpointError: its file of prompts cannot be read.
    """
    known: list[str] = []
    for item_labels, template in _prompts(directory):
        if sorted(item_labels) == sorted(labels):
            return template
        known.append(",".join(item_labels))
    shown = f"; the model comes with prompts for: {'  '.join(known)}" if known else ""
    raise SpecError(
        f"no prompt is known for the labels {','.join(labels)}{shown}. Give one with --prompt "
        '"Review: {text}\\nSentiment:"'
    )


def notice_of(directory: Path) -> str | None:
    """The terms that the checkpoint's card wants its bundles to carry, if any.

    Raises:
        CheckpointError: its file of prompts cannot be read.
    """
    notice = _card(directory).get("notice")
    return None if notice is None else str(notice)


def _prompts(directory: Path) -> list[tuple[list[str], str]]:
    """The labels and the template of each prompt that a card gives."""
    try:
        items = _card(directory).get("prompt", [])
        return [([str(label) for label in it["labels"]], str(it["template"])) for it in items]
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{directory / PROMPTS} is not a table of prompts ({error!r}); mend it or give --prompt"
        ) from None


def _card(directory: Path) -> dict[str, Any]:
    """What `prompts.toml` beside a checkpoint says; nothing without the file."""
    path = directory / PROMPTS
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a table of prompts ({error}); mend it or give --prompt"
        ) from None
