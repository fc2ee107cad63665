"""The keys of results in JSON, and their columns in files: of texts and of answers to questions."""

from __future__ import annotations

from collections.abc import Sequence

from .bundle import Field, Manifest
from .columns import Record
from .render_questions import question_keys

_OWN_KEYS = (
    "index", "file", "line", "label", "labels", "score", "probability", "probabilities",
    "truncated", "tokens", "error", "variant", "provider",
)  # fmt: skip


def text_keys(fields: Sequence[Field]) -> dict[str, str]:
    """The keys, or columns, of results for the text of each field: `text` for a single one; of
    several their own names, with `text_` before one that results have besides."""
    if len(fields) == 1:
        return {fields[0].name: "text"}
    names, keys = {field.name for field in fields}, {}
    for name in (field.name for field in fields):
        key = name
        while key in _OWN_KEYS or key.startswith("probability_") or key in names - {name}:
            key = f"text_{key}"
        keys[name] = key
    return keys


def question_columns(manifest: Manifest) -> list[tuple[str, str]]:
    """The columns of results for each question: that of its label, by the question's name, and that
    of the label's probability."""
    names = [question.name for question in manifest.questions]
    taken = {*_OWN_KEYS, *text_keys(manifest.prompt.places).values()}
    return question_keys(names, taken, "_probability")


def texts_dict(fields: Sequence[Field], given: Record) -> dict[str, str]:
    """The texts of a record by the keys of results, without those that are left to a default."""
    keys = text_keys(fields)
    if isinstance(given, str):
        return {keys[fields[0].name]: given}
    return {keys[name]: text for name, text in given.items()}
