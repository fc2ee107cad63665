"""No row is lost: of a file of texts, however odd, every record is answered once and in its place,
by an answer or by the reason why there is none.

TRIMEXPORT_FUZZ is three times as many as are tried.
"""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from mutations import EXAMPLES
from odd_files import KINDS, Given, files
from trimexport_runtime import Classifier, InputError, Prediction
from trimexport_runtime.cli import main
from trimexport_runtime.files import BadLine, read_file
from trimexport_runtime.records import answers
from trimexport_runtime.render import Answer

FUZZ = settings(max_examples=EXAMPLES // 3, deadline=None, database=None)


def _job(bundle: Path, path: Path) -> list[dict[str, Any]] | None:
    """The rows that a job makes of a file, None where it is refused."""
    out = path.with_name("out.jsonl")
    job = ("--file", str(path), "-o", str(out), "--workers", "1", "--threads", "1")
    result = CliRunner().invoke(main, ["classify", str(bundle), *job])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    if not out.exists():
        assert result.exit_code == 1
        return None
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n")[:-1]]
    assert result.exit_code == int(any("error" in row for row in rows))
    out.unlink()
    return rows


def _check_job(rows: list[dict[str, Any]] | None, found: list[Answer] | None) -> None:
    """A job says of each record what `classify --file` says of it."""
    assert (rows is None) == (found is None)
    for row, answer in zip(rows or [], found or [], strict=True):
        assert row["line"] == answer.number
        if isinstance(answer.result, BadLine):
            assert "label" not in row
            assert row["error"]
        else:
            assert (row["text"], row["label"]) == (answer.text, answer.result.label)


def _answers(classifier: Classifier, path: Path) -> list[Answer] | None:
    """What is answered to a file, None where it is refused."""
    with contextlib.suppress(InputError):
        return list(answers(classifier, read_file(path)))
    return None


def test_no_row_is_lost(bundle: Path, classifier: Classifier, tmp_path: Path) -> None:
    @functools.cache
    def alone(text: str) -> Prediction:
        return classifier.classify([text])[0]

    @FUZZ
    @given(files())
    def classify(given: Given) -> None:
        path = tmp_path / f"in.{given.kind}"
        path.write_bytes(given.content)
        found = _answers(classifier, path)
        _check_job(_job(bundle, path), found)
        if found is None:  # it looks like UTF-16, or like lines that end with CR alone
            assert any("\0" in (text or "\0") or "\r" in str(text) for text in given.texts)
            return
        assert [answer.index for answer in found] == list(range(len(given.texts)))
        for answer, text in zip(found, given.texts, strict=True):
            if text is None:
                assert isinstance(answer.result, BadLine)
                continue
            assert answer.text == text
            assert isinstance(answer.result, Prediction)
            expected = alone(text).probabilities
            assert answer.result.probabilities == pytest.approx(expected, abs=1e-5)

    classify()


@st.composite
def _noisy(draw: st.DrawFn) -> tuple[str, bytes]:
    """A file of which some bytes are others, under its own extension or another."""
    given = draw(files())
    raw = given.content
    noise = st.binary(max_size=4) | st.sampled_from(
        (b"\n", b"\r", b'"', b"\0", b"\xff", b"\xe2\x80")
    )
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(raw)))
        raw = raw[:place] + draw(noise) + raw[place + draw(st.integers(0, 3)) :]
    return draw(st.sampled_from((given.kind, given.kind, *KINDS))), raw


def _records(kind: str, raw: bytes) -> int | None:
    """How many records there are by another count, None where there is none so simple."""
    lines = raw.removesuffix(b"\n").split(b"\n") if raw else []
    if kind == "txt":
        return len(lines)
    if kind != "jsonl":
        return None
    lines = [lines[0].removeprefix(b"\xef\xbb\xbf"), *lines[1:]] if lines else []
    return sum(bool(line.decode(errors="replace").strip()) for line in lines)


def test_bytes(bundle: Path, classifier: Classifier, tmp_path: Path) -> None:
    @FUZZ
    @given(_noisy())
    def classify(case: tuple[str, bytes]) -> None:
        kind, raw = case
        path = tmp_path / f"in.{kind}"
        path.write_bytes(raw)
        found = _answers(classifier, path)
        _check_job(_job(bundle, path), found)
        if found is None:
            return
        assert _records(kind, raw) in (len(found), None)
        numbers = [answer.number for answer in found]
        assert numbers == sorted(set(numbers))

    classify()
