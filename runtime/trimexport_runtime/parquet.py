"""Parquet files, read through pyarrow, which nothing else needs (extra `parquet`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .errors import ColumnError, InputError

_BATCH_ROWS = 512
_BUFFER = 1 << 20  # bytes of a column that are read ahead, so that a row group is not read whole


def pyarrow() -> Any:
    """The package `pyarrow`, with its module `parquet` loaded.

    Raises:
        InputError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"Parquet needs pyarrow ({error}); install `trimexport-runtime[parquet]`, or use .jsonl"
        ) from None
    return pyarrow


def rows_of(path: Path, stream: BinaryIO, column: str) -> Iterator[str | None]:
    """The strings of a column, as they are asked for; None where it is null.

    Bytes that are not UTF-8 become lone surrogates.

    Raises:
        InputError: no pyarrow, not a Parquet file, no such column, or one that has no strings.
    """
    arrow = pyarrow()
    try:
        file = arrow.parquet.ParquetFile(stream, buffer_size=_BUFFER)
        _check_column(arrow, path, file.schema_arrow, column)
        for batch in file.iter_batches(_BATCH_ROWS, columns=[column]):
            yield from _strings(arrow, batch.column(0))
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as Parquet ({error}); write the file again"
        ) from None


def _strings(arrow: Any, column: Any) -> list[str | None]:
    try:
        strings: list[str | None] = column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast(arrow.large_binary()).to_pylist()
        return [None if item is None else item.decode(errors="surrogateescape") for item in raw]
    return strings


def _check_column(arrow: Any, path: Path, schema: Any, column: str) -> None:
    names = schema.names
    if column not in names:
        raise ColumnError(
            f'{path} has no column "{column}"; it has: {", ".join(names) or "none"}',
            "name the column of the texts with --column",
        )
    kind = schema.field(column).type
    if arrow.types.is_dictionary(kind):
        kind = kind.value_type
    text_kinds = (arrow.types.is_string, arrow.types.is_large_string, arrow.types.is_string_view)
    if not any(is_kind(kind) for is_kind in text_kinds):
        raise ColumnError(
            f'the column "{column}" of {path} has the type {kind}, texts are strings',
            "name another with --column",
        )
