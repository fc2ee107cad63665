"""The formats of a job's output: .parquet, .jsonl or .csv, with a row for each record of the input.

    file, line, text, label, probability, probability_LABEL ..., truncated, tokens, error

Where the prompt has several fields, a column for each stands in the place of `text`. Behind
`tokens` stands `score` where the bundle gives one number, and `labels`, those that are true with
commas between them, where labels are independent. Where the bundle asks several questions, two
columns for each, `QUESTION` for the label and `QUESTION_probability`, stand in the place of those
from `label` to `truncated`.

A record without an answer has its `error` and nothing from `label` on. In .jsonl the probabilities
are one object, `probabilities`, and the answers to questions another, `answers`, as
`classify --json` prints them. Each format writes a part by
itself and joins parts, in bounded memory.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

from trimexport_runtime.bundle import INDEPENDENT, Manifest
from trimexport_runtime.errors import InputError
from trimexport_runtime.parquet import pyarrow
from trimexport_runtime.render import prediction_dict
from trimexport_runtime.result_keys import question_columns, text_keys, texts_dict

from .parts import Row

GROUP_ROWS = 65_536
GROUP_BYTES = 1 << 26
"""A row group of the joined Parquet file ends with the part that brings it to one of these."""


@dataclass(frozen=True)
class Format:
    """`encode` makes a part's bytes of rows and the bundle's manifest; `join` makes the output of
    parts."""

    encode: Callable[[Sequence[Row], Manifest], bytes]
    join: Callable[[IO[bytes], Sequence[Path], Manifest], None]


def format_of(output: Path) -> Format:
    """The format that a file's extension names.

    Raises:
        InputError: it names none, or one that needs pyarrow where that is not installed.
    """
    form = FORMATS.get(output.suffix.lower())
    if form is None:
        raise InputError(
            f'{output} has the extension "{output.suffix}"; results are written as '
            f"{', '.join(FORMATS)}"
        )
    if form is _PARQUET:
        pyarrow()
    return form


def names(manifest: Manifest) -> list[str]:
    """The names of the columns of .csv and .parquet."""
    texts = text_keys(manifest.prompt.places).values()
    answer = [*_answered(manifest), "truncated", "tokens", *_scored(manifest)]
    return ["file", "line", *texts, *answer, "error"]


def _answered(manifest: Manifest) -> list[str]:
    """The columns of labels and probabilities."""
    if manifest.questions:
        return list(chain.from_iterable(question_columns(manifest)))
    each = [f"probability_{label}" for label in manifest.label_names]
    return ["label", "probability", *each]


def _scored(manifest: Manifest) -> list[str]:
    """The columns that a bundle's score adds."""
    if manifest.score.kind == INDEPENDENT:
        return ["labels"]
    return ["score"] if manifest.score.is_single else []


def values(row: Row, manifest: Manifest) -> list[Any]:
    """A row's values in the columns of `names`, None where it has none."""
    keys, answer = text_keys(manifest.prompt.places), row.prediction
    texts = {} if row.text is None else texts_dict(manifest.prompt.places, row.text)
    record = [row.file, row.line, *(texts.get(key) for key in keys.values())]
    if answer is None:
        empty = len(_answered(manifest)) + 2 + len(_scored(manifest))
        return [*record, *[None] * empty, row.error]
    chosen: tuple[Any, ...] = (answer.label, answer.probability, *answer.probabilities)
    if manifest.questions:
        chosen = tuple(
            chain.from_iterable((it.label, it.probability) for it in answer.answers.values())
        )
    scored = {"score": answer.score, "labels": ",".join(answer.labels)}
    more = (scored[name] for name in _scored(manifest))
    return [*record, *chosen, answer.truncated, answer.tokens, *more, None]


def _jsonl(rows: Sequence[Row], manifest: Manifest) -> bytes:
    return b"".join(_json_line(row, manifest) for row in rows)


def _json_line(row: Row, manifest: Manifest) -> bytes:
    value: dict[str, Any] = {"file": row.file, "line": row.line}
    if row.text is not None:
        value |= texts_dict(manifest.prompt.places, row.text)
    if row.prediction is not None:
        value |= prediction_dict(row.prediction, manifest)
    else:
        value["error"] = row.error
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _csv(rows: Sequence[Row], manifest: Manifest) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(values(row, manifest) for row in rows)
    return out.getvalue().encode()


def _parquet(rows: Sequence[Row], manifest: Manifest) -> bytes:
    arrow = pyarrow()
    columns = zip(*(values(row, manifest) for row in rows), strict=True)
    schema = _schema(arrow, manifest)
    kinds = zip(columns, schema.types, strict=True)
    arrays = [arrow.array(column, kind) for column, kind in kinds]
    out = io.BytesIO()
    arrow.parquet.write_table(arrow.Table.from_arrays(arrays, schema=schema), out)
    return out.getvalue()


def _schema(arrow: Any, manifest: Manifest) -> Any:
    text, real = arrow.string(), arrow.float64()
    kinds = {"line": arrow.int64(), "truncated": arrow.bool_(), "tokens": arrow.int64()}
    reals = {"probability", *(f"probability_{label}" for label in manifest.label_names)}
    if manifest.questions:
        reals = {share for _, share in question_columns(manifest)}
    if "score" in _scored(manifest):
        reals.add("score")
    return arrow.schema(
        (name, real if name in reals else kinds.get(name, text)) for name in names(manifest)
    )


def _join_bytes(out: IO[bytes], parts: Sequence[Path], manifest: Manifest) -> None:
    for part in parts:
        with part.open("rb") as stream:
            shutil.copyfileobj(stream, out)


def _join_csv(out: IO[bytes], parts: Sequence[Path], manifest: Manifest) -> None:
    header = io.StringIO(newline="")
    csv.writer(header).writerow(names(manifest))
    out.write(header.getvalue().encode())
    _join_bytes(out, parts, manifest)


def _join_parquet(out: IO[bytes], parts: Sequence[Path], manifest: Manifest) -> None:
    arrow = pyarrow()
    group: list[Any] = []
    with arrow.parquet.ParquetWriter(out, _schema(arrow, manifest)) as writer:
        for part in parts:
            group.append(arrow.parquet.read_table(part))
            rows = sum(table.num_rows for table in group)
            size = sum(table.nbytes for table in group)
            if rows >= GROUP_ROWS or size >= GROUP_BYTES or part is parts[-1]:
                writer.write_table(arrow.concat_tables(group), row_group_size=rows)
                group = []


_PARQUET = Format(_parquet, _join_parquet)
FORMATS = {
    ".parquet": _PARQUET,
    ".jsonl": Format(_jsonl, _join_bytes),
    ".csv": Format(_csv, _join_csv),
}
