"""The file `prompts.toml` beside a checkpoint: its prompts and its notice."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimexport.errors import CheckpointError, SpecError

PROMPTS = "prompts.toml"


def prompt_for(directory: Path, labels: Sequence[str]) -> str:
    """The prompt template that `prompts.toml` has for exactly these labels, in any order.

    Raises:
        SpecError: it has none for them.
        CheckpointError: the file cannot be read.
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
    """The terms that bundles made from the checkpoint have to carry, or None.

    Raises:
        CheckpointError: the file cannot be read.
    """
    notice = _contents(directory).get("notice")
    return None if notice is None else str(notice)


def _prompts(directory: Path) -> list[tuple[list[str], str]]:
    """The labels and the template of each prompt in the file."""
    try:
        return [
            ([str(label) for label in prompt["labels"]], str(prompt["template"]))
            for prompt in _contents(directory).get("prompt", [])
        ]
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{directory / PROMPTS} is not a table of prompts ({error!r}); mend it or give --prompt"
        ) from None


def _contents(directory: Path) -> dict[str, Any]:
    """The file's contents; an empty dictionary without the file."""
    path = directory / PROMPTS
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a table of prompts ({error}); mend it or give --prompt"
        ) from None
