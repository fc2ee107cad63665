"""A suggestion as a recipe, for `trimexport build --recipe`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from trimexport.atomic import check_place, write_files
from trimexport.errors import OutputError
from trimexport_runtime.visible import visible

if TYPE_CHECKING:  # a place is refused without loading PyTorch
    from .suggest import Suggestion


def check_recipe_place(path: Path, force: bool) -> None:
    """Refuse a place for a recipe before any work is done.

    Raises:
        OutputError: `path` cannot be written, is a directory, or exists and `force` is not given.
    """
    check_place(path)
    if not path.exists():
        return
    if path.is_dir():
        raise OutputError(f"{path} is a directory; name a file for the recipe with -o")
    if not force:
        raise OutputError(f"{path} exists; give --force to replace it, or another -o")


def write_recipe(suggestion: Suggestion, path: Path) -> None:
    """Write the recipe that builds with the first choice's words.

    Raises:
        OutputError: it cannot be written.
    """
    write_files({path: recipe(suggestion, path)})


def recipe(suggestion: Suggestion, path: Path) -> str:
    """The recipe that builds with the first choice's words, as it is written to `path`."""
    spec, scores = suggestion.best_spec, suggestion.choices[0].scores
    low, high = scores.interval
    settings = {
        "model": _seen_from(path, spec.model),
        "revision": spec.revision,
        "adapter": None if spec.adapter is None else _seen_from(path, spec.adapter),
        "prompt": spec.prompt,
        "chat": spec.chat or None,
        "system": spec.system,
        "labels": list(spec.labels),
    }
    count, source = sum(suggestion.examples), Path(suggestion.source).name
    return "\n".join(
        [
            f"# The words were chosen by trimexport suggest on {count:,} examples of",
            f"# {visible(source)}: accuracy {scores.accuracy:.2%} (95 %: {low:.2%} to "
            f"{high:.2%}), label mass {scores.mass:.2%}.",
            *(f"{key} = {_toml(value)}" for key, value in settings.items() if value is not None),
            "",
            "[verbalizers]",
            *(f"{_toml(label)} = {_toml(word)}" for label, (word,) in spec.verbalizers.items()),
            "",
        ]
    )


def _seen_from(path: Path, name: str) -> str:
    """A directory relative to the recipe's; a hub id as it is."""
    directory = Path(name)
    if not directory.is_dir():
        return name
    try:
        return os.path.relpath(directory.resolve(), path.parent.resolve())
    except ValueError:  # on another drive
        return str(directory.resolve())


def _toml(value: object) -> str:
    """A string, list or truth value as TOML, which JSON writes the same way but for one control
    character."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
