"""The options that say where a file has its texts and labels, as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trimexport.texts import Columns


def columns_of(
    text_column: str | None, label_column: str, names: str | None, fields: str | None
) -> Columns:
    """The columns of `--text-column`, or `--columns`, and `--label-column`, with the names of
    `--map`.

    Raises:
        click.UsageError: a pair of `--map` or `--columns` has no equals sign.
    """
    from trimexport.texts import Columns  # here, so that help stays quick

    labels = _pairs(names, "--map is NAME=LABEL")
    return Columns(text_column, label_column, labels, _pairs(fields, "--columns is FIELD=NAME"))


def _pairs(text: str | None, usage: str) -> dict[str, str]:
    """`NAME=VALUE,NAME=VALUE` -> the value of each name."""
    pairs = [] if text is None else [pair.partition("=") for pair in text.split(",")]
    if not all(equals for _, equals, _ in pairs):
        raise click.UsageError(f"{usage},{usage.rpartition(' ')[2]}.")
    return {name.strip(): value.strip() for name, _, value in pairs}
