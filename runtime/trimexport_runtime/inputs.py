"""What a bundle classifies: a text, or a text for each field of its prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from .errors import InputError
from .manifest import Field

Input: TypeAlias = str | Sequence[str] | Mapping[str, str]
"""A text, where one field has to be given; the texts of those that have to be given, in their
order, where there are several; or texts by their fields' names."""

_ESCAPED_BYTES = range(0xDC80, 0xDD00)  # how Python keeps bytes that are not UTF-8
_OF_BYTES = 'the text comes from bytes that are not UTF-8: decode those with errors="replace"'
_OF_HALVES = (
    "it is half of a character that was cut in two: write both halves, in JSON as "
    r"\ud83d\ude00, or leave it out"
)


def problem_of(text: object) -> str | None:
    """Why `text` cannot be tokenised, or None when it can: it must be a str of characters."""
    if not isinstance(text, str):
        return f"a text must be a str, this is {type(text).__name__}; convert it first"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        return (
            f"character {error.start} is the lone surrogate U+{code:04X}, which is no character; "
            + (_OF_BYTES if code in _ESCAPED_BYTES else _OF_HALVES)
        )
    return None


def required(fields: Sequence[Field]) -> tuple[str, ...]:
    """The names of the fields that have no default."""
    return tuple(field.name for field in fields if field.default is None)


def texts_of(fields: Sequence[Field], given: object) -> tuple[str, ...]:
    """The text of each field, in their order, the defaults included.

    Args:
        given: an `Input` of a prompt with these fields, or what is to be refused.

    Raises:
        InputError: it is none, a field is missing or not known, or a text is no str of characters.
    """
    by_name, known = _by_name(fields, given), {field.name for field in fields}
    if strange := [name for name in by_name if name not in known]:
        raise InputError(f"this bundle's prompt has no field {strange[0]!r}; {_has(fields)}")
    if missing := [name for name in required(fields) if name not in by_name]:
        raise InputError(f"the field {missing[0]!r} is missing; {_has(fields)}")
    return tuple(_text(field, by_name, alone=len(fields) == 1) for field in fields)


def _text(field: Field, by_name: Mapping[object, object], *, alone: bool) -> str:
    text = by_name.get(field.name, field.default)
    if problem := problem_of(text):
        raise InputError(problem if alone else f"{field.name}: {problem}")
    return str(text)


def characters(given: object) -> int:
    """How many characters an input has; none if it is not one."""
    if isinstance(given, Mapping):
        given = tuple(given.values())
    texts = (given,) if isinstance(given, str) or not isinstance(given, Sequence) else given
    return sum(len(text) for text in texts if isinstance(text, str))


def _by_name(fields: Sequence[Field], given: object) -> Mapping[object, object]:
    """What is given of each field, by its name."""
    names = required(fields)
    if isinstance(given, Mapping):
        return given
    if len(names) == 1 and (isinstance(given, str) or not isinstance(given, Sequence)):
        return {names[0]: given}
    if len(fields) == 1:
        raise InputError(problem_of(given))
    if len(names) == 1 or isinstance(given, bytes) or not isinstance(given, str | Sequence):
        raise InputError(f"a {type(given).__name__} is no input of this bundle; {_has(fields)}")
    if isinstance(given, str):
        raise InputError(f"this is one text, and the bundle's prompt takes several; {_has(fields)}")
    if len(given) != len(names):
        raise InputError(f"{len(given)} texts are given together; {_has(fields)}")
    return dict(zip(names, given, strict=True))


def _has(fields: Sequence[Field]) -> str:
    """What fields there are, and how to give them."""
    names = required(fields)
    others = [field.name for field in fields if field.default is not None]
    able = f", and it may have {', '.join(map(repr, others))}" if others else ""
    if len(names) == 1:
        return f"it takes a text, or an object with {names[0]!r}{able}"
    listed = ", ".join(map(repr, names))
    return f"it takes an object with {listed}{able}; or the {len(names)} texts in this order"
