"""Inputs of prompts with several fields: the texts of a row, as the exporter keeps, shows and
recognises them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from trimexport_runtime import InputError
from trimexport_runtime.bundle import Field
from trimexport_runtime.inputs import Input, required, texts_of

ONE_TEXT = (Field("text"),)
"""The fields of a prompt with one text."""


class Record(dict[str, str]):
    """The texts of a row by their fields. It may stand in a set, and is not to be changed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self.items())))


def as_inputs(given: Iterable[Input], fields: Sequence[Field]) -> tuple[Input, ...]:
    """Inputs of a prompt as the exporter keeps them: a text where one field alone has to be given
    and nothing else is, otherwise a `Record`.

    Raises:
        InputError: one is no input of a prompt with several fields, named by its position from 0.
    """
    if len(fields) == 1:
        return tuple(it[fields[0].name] if isinstance(it, Mapping) else it for it in given)
    return tuple(_as_input(place, it, fields) for place, it in enumerate(given))


def _as_input(place: int, given: Input, fields: Sequence[Field]) -> Input:
    try:
        texts_of(fields, given)
    except InputError as error:
        raise InputError(f"text {place}: {error}") from None
    names = required(fields)
    if isinstance(given, str):
        return given
    record = Record(given if isinstance(given, Mapping) else zip(names, given, strict=True))
    return record[names[0]] if tuple(record) == names and len(names) == 1 else record


def combined(texts: Sequence[str], fields: Sequence[Field]) -> tuple[Input, ...]:
    """Inputs made of single texts: each with those behind it, one for each field that has to be
    given."""
    names = required(fields)
    return as_inputs(
        (
            Record({name: texts[(at + more) % len(texts)] for more, name in enumerate(names)})
            for at in range(len(texts))
        ),
        fields,
    )


def one_line(given: Input) -> str:
    """An input as reports show it: a text as it is, `query: …; document: …` of several."""
    if isinstance(given, str):
        return given
    if isinstance(given, Mapping):
        return "; ".join(f"{name}: {text}" for name, text in given.items())
    return "; ".join(given)


def all_text(given: Input) -> str:
    """All texts of an input, one behind the other."""
    if isinstance(given, str):
        return given
    return "".join(given.values() if isinstance(given, Mapping) else given)


def spelling(given: Input) -> str:
    """The string by which an input is recognised: a text itself, otherwise its JSON."""
    if isinstance(given, str):
        return given
    texts = dict(given) if isinstance(given, Mapping) else list(given)
    return json.dumps(texts, sort_keys=True, allow_nan=False)


def text_sha256(text: Input) -> str:
    """What a bundle records of a text, or of a row's, by which it is recognised among others."""
    return hashlib.sha256(spelling(text).encode("utf-8", "surrogatepass")).hexdigest()


def short(text: Input) -> str:
    """A text, or a row's, as a message shows it."""
    line = one_line(text)
    return repr(line if len(line) <= 80 else line[:77] + "...")
