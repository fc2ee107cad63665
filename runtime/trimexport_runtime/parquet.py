"""Parquet files, read through pyarrow, which nothing else needs (extra `parquet`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from .columns import Column, advice
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


def rows_of(
    path: Path, stream: BinaryIO, columns: Sequence[Column], others: Sequence[str] = ()
) -> Iterator[tuple[dict[str, str | None], dict[str, Any]]]:
    """The strings of each row in `columns`, as they are asked for, None where they are null; and
    its values in `others`, columns of any type; all by their columns' names. No further column is
    read, and one that is not needed only where the file has it.

    Bytes that are not UTF-8 become lone surrogates.

    Raises:
        InputError: no pyarrow, not a Parquet file, no such column or two of its name, one of
            `columns` that has no strings, or a value that Python cannot hold.
    """
    arrow = pyarrow()
    try:
        file = arrow.parquet.ParquetFile(stream, buffer_size=_BUFFER)
        schema = file.schema_arrow
        there = [column for column in columns if column.needed or column.name in schema.names]
        for name in dict.fromkeys((*(column.name for column in there), *others)):
            _check_column(path, schema, name, advice(columns, name))
        for column in there:
            _check_strings(arrow, path, schema, column.name, columns)
        texts = [column.name for column in there]
        names = list(dict.fromkeys((*texts, *others)))
        for batch in file.iter_batches(_BATCH_ROWS, columns=names):
            places = {name: batch.schema.names.index(name) for name in names}
            values = {name: _values(arrow, batch.column(at)) for name, at in places.items()}
            for at in range(batch.num_rows):
                besides = {name: values[name][at] for name in others}
                yield {name: values[name][at] for name in texts}, besides
    except (arrow.ArrowException, ArithmeticError, ValueError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as Parquet ({error}); write the file again"
        ) from None


def _values(arrow: Any, column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast(arrow.large_binary()).to_pylist()
        return [None if item is None else item.decode(errors="surrogateescape") for item in raw]
    return values


def _check_column(path: Path, schema: Any, name: str, remedy: str) -> None:
    """Refuse a file that does not have a column, once."""
    if name not in schema.names:
        raise ColumnError(
            f'{path} has no column "{name}"; it has: {", ".join(schema.names) or "none"}',
            remedy,
            name,
        )
    if schema.names.count(name) > 1:
        raise InputError(several_columns(path, name))


def _check_strings(
    arrow: Any, path: Path, schema: Any, name: str, columns: Sequence[Column]
) -> None:
    """Refuse a column of texts that has no strings."""
    kind = schema.field(name).type
    if arrow.types.is_dictionary(kind):
        kind = kind.value_type
    text_kinds = (arrow.types.is_string, arrow.types.is_large_string, arrow.types.is_string_view)
    if not any(is_kind(kind) for is_kind in text_kinds):
        raise ColumnError(
            f'the column "{name}" of {path} has the type {kind}, texts are strings',
            "name another with --column" if len(columns) == 1 else advice(columns, name),
            name,
        )


def several_columns(path: Path, name: str) -> str:
    """What is said of a file with several columns of one name."""
    return f'{path} has several columns "{name}"; rename all but the one that is meant'
