"""Files of texts as every kind's own writer could have written them, with some bad records."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass

import pyarrow
import pyarrow.parquet
from hypothesis import strategies as st

KINDS = ("txt", "csv", "jsonl", "parquet")
ODD = (
    *("", " ", "a film", '"', '""', ",", "a,b", "a;b\tc|d", "'", "\\", "\r", "\r\n", "\n"),
    *("\u2028", "\x85", "\x0b", "\x1c", "\ufeff", "\ufeffa", "null", "NaN", "{}", "\U0001f600"),
    "word " * 700,
)
TEXT = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
RARELY = st.sampled_from((False,) * 5 + (True,))


@dataclass(frozen=True)
class Given:
    """A file of texts: its extension, its bytes, and each record's text, None where it has none."""

    kind: str
    content: bytes
    texts: list[str | None]


def _txt(texts: list[str], end: str) -> Given:
    texts = [it.replace("\n", "") for it in texts]
    texts = [it + "." if it.endswith("\r") else it for it in texts]
    content = "".join(text + end for text in texts)
    texts = [texts[0].removeprefix("\ufeff"), *texts[1:]]  # a mark of the encoding
    return Given("txt", content.encode(), [None if "\0" in it else it for it in texts])


def _jsonl(draw: st.DrawFn, texts: list[str], end: str) -> Given:
    lines, expected = [], []
    for text in texts:
        bad = draw(st.sampled_from((*[""] * 8, "{", "3", '{"a": 1}', '{"text": null}', "\udcff")))
        ascii_ = draw(st.booleans())
        right = json.dumps({"id": 1, "text": text}, ensure_ascii=ascii_)
        lines.append(bad or right)
        expected.append(None if bad or "\0" in right else text)
        if draw(RARELY):
            lines.append(draw(st.sampled_from(("", "  ", "\t"))))
    content = "".join(line + end for line in lines)
    return Given("jsonl", content.encode(errors="surrogateescape"), expected)


def _csv(draw: st.DrawFn, texts: list[str], end: str) -> Given:
    # Before lines that end with a line feed alone, Python leaves a carriage return unquoted.
    least = csv.QUOTE_MINIMAL if end == "\r\n" else csv.QUOTE_NONNUMERIC
    quoting = draw(st.sampled_from((csv.QUOTE_ALL, least)))
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=quoting, lineterminator=end)
    writer.writerows([["id", "text"], *([str(n), text] for n, text in enumerate(texts))])
    return Given(
        "csv", stream.getvalue().encode(), [None if "\0" in text else text for text in texts]
    )


def _parquet(draw: st.DrawFn, texts: list[str]) -> Given:
    column = [None if draw(RARELY) else text for text in texts]
    kind = draw(st.sampled_from((pyarrow.string(), pyarrow.large_string())))
    array = pyarrow.array(column, kind)
    table = pyarrow.table({"text": array.dictionary_encode() if draw(RARELY) else array})
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream, row_group_size=draw(st.sampled_from((1, 3, 1000))))
    return Given("parquet", stream.getvalue(), column)


@st.composite
def files(draw: st.DrawFn) -> Given:
    """A file that its kind's own writer could have written, with some bad records among others."""
    texts = draw(st.lists(TEXT, min_size=1, max_size=12))
    end = draw(st.sampled_from(("\n", "\r\n")))
    match draw(st.sampled_from(KINDS)):
        case "txt":
            return _txt(texts, end)
        case "csv":
            return _csv(draw, texts, end)
        case "jsonl":
            return _jsonl(draw, texts, end)
        case _:
            return _parquet(draw, texts)
