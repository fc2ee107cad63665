"""The options that say where a file has its texts and labels, as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trimexport.texts import Columns


def columns_of(text_column: str, label_column: str, names: str | None) -> Columns:
    """The columns of `--text-column` and `--label-column` with the names of `--map`.

    Raises:
        click.UsageError: a pair of `--map` has no equals sign.
    """
    from trimexport.texts import Columns  # here, so that help stays quick

    pairs = [] if names is None else [pair.partition("=") for pair in names.split(",")]
    if not all(equals for _, equals, _ in pairs):
        raise click.UsageError("--map is NAME=LABEL,NAME=LABEL.")
    labels = {name.strip(): label.strip() for name, _, label in pairs}
    return Columns(text_column, label_column, labels)
