"""The columns of a file in which the fields of a prompt stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .errors import InputError
from .inputs import required
from .manifest import Field

DEFAULT_COLUMN = "text"

Record: TypeAlias = str | Mapping[str, str]
"""What a row gives: a text for a prompt with one field, else the texts that it has by their fields,
in the prompt's order."""


@dataclass(frozen=True)
class Column:
    """The column `name`, in which the texts of a prompt's field stand. Where it is not `needed`,
    a file or a row may lack it, and the field's default stands there."""

    field: str
    name: str
    needed: bool = True


def only_column(name: str = DEFAULT_COLUMN) -> tuple[Column, ...]:
    """The column of files that have a text in each row."""
    return (Column("text", name),)


def columns_for(
    fields: Sequence[Field], column: str | None = None, named: Mapping[str, str] | None = None
) -> tuple[Column, ...]:
    """The columns of a prompt's fields: a single field's is called `text`, and those of several
    as they are, unless they are named. One that is named must be in the file.

    Args:
        column: the name of a single field's.
        named: the names of columns by their fields.

    Raises:
        InputError: `column` is given of several fields, or a name of a field that there is not.
    """
    named, known = named or {}, [field.name for field in fields]
    if strange := [name for name in named if name not in known]:
        raise InputError(
            f"the bundle's prompt has no field {strange[0]!r} for --columns; it has: "
            + ", ".join(known)
        )
    if len(fields) == 1:
        return (Column(known[0], named.get(known[0], column or DEFAULT_COLUMN)),)
    if column is not None:
        example = ",".join(f"{name}=COLUMN" for name in required(fields))
        raise InputError(
            f"--column names the column of a single field, and the bundle's prompt has several: "
            f"{', '.join(known)}; name theirs with --columns {example}"
        )
    return tuple(
        Column(
            field.name,
            named.get(field.name, field.name),
            needed=field.default is None or field.name in named,
        )
        for field in fields
    )


def as_record(columns: Sequence[Column], texts: Mapping[str, str]) -> Record:
    """The record of a row whose texts, by their fields, are `texts`."""
    return texts[columns[0].field] if len(columns) == 1 else texts


def advice(columns: Sequence[Column], name: str) -> str:
    """What to do about a file without the column `name`."""
    if len(columns) == 1:
        return "name the column of the texts with --column"
    field = next((it.field for it in columns if it.name == name), name)
    return f"name the column of the field {field!r} with --columns {field}=COLUMN"
