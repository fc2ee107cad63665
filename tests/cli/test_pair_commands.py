"""The commands on a bundle for pairs of texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import tiny
from trimexport_runtime import read_manifest

Invoke = Callable[..., Result]
ROWS = [
    (f"is it {word} ?", f"a {word} film, number {number}", ("yes", "no")[number % 2])
    for number, word in enumerate(("good", "dull", "long", "short", "loud", "warm"))
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Pairs with labels, in columns of the fields' names."""
    return _written(tmp_path / "rows.jsonl", "query", "document")


def _written(path: Path, query: str, document: str) -> Path:
    lines = [json.dumps({query: q, document: d, "label": label}) for q, d, label in ROWS]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def own(pairs: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to change."""
    return shutil.copytree(pairs, tmp_path / "bundle")


def test_eval(own: Path, rows: Path, tmp_path: Path, tiny_invoke: Invoke) -> None:
    """By columns of the fields' names and of others; a mistake is shown with both texts."""
    done = tiny_invoke("eval", own, rows, "--json", "--variant", "fp32")
    assert done.exit_code == 0, done.stderr
    (found,) = json.loads(done.stdout)["variants"]
    assert len(found["answers"]) == len(ROWS)
    mistakes = found["mistakes"]
    assert mistakes
    for mistake in mistakes:
        query, document, label = ROWS[mistake["index"]]
        assert mistake["text"] == f"query: {query}; document: {document}"
        assert mistake["gold"] == label
    page = (own / "reports" / "eval-rows.html").read_text(encoding="utf-8")
    assert f"query: {ROWS[mistakes[0]['index']][0]}; document: " in page
    other = _written(tmp_path / "other.jsonl", "q", "passage")
    columns = ("--columns", "query=q,document=passage")
    again = tiny_invoke("eval", own, other, *columns, "--json", "--variant", "fp32")
    assert json.loads(again.stdout)["digest"] == json.loads(done.stdout)["digest"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--columns", "query"), "--columns is FIELD=NAME,FIELD=NAME."),
        (("--columns", "question=q"), "no field 'question' for --columns; it has: query, document"),
        (("--columns", "query=q"), 'no key "q"'),
        (("--text-column", "q"), "the prompt has several fields: query, document; name theirs"),
    ],
)
def test_columns_that_are_refused(
    pairs: Path, rows: Path, tiny_invoke: Invoke, options: tuple[str, ...], message: str
) -> None:
    done = tiny_invoke("eval", pairs, rows, *options)
    assert done.exit_code in (1, 2)
    assert message in done.stderr


def test_files_without_the_fields(pairs: Path, tmp_path: Path, tiny_invoke: Invoke) -> None:
    table, lines = tmp_path / "rows.csv", tmp_path / "rows.txt"
    table.write_text("query,text\na,b\n", encoding="utf-8")
    lines.write_text("a\n", encoding="utf-8")
    said = tiny_invoke("verify", pairs, "--texts", table).stderr
    assert f'{table} has no column "document" in its first line; it has: query, text' in said
    assert 'call it "document"' in said
    said = tiny_invoke("verify", pairs, "--texts", lines).stderr
    assert "has one text a line, and the bundle's prompt takes several: query, document" in said
    said = tiny_invoke("eval", pairs, table, "--label-column", "text").stderr
    assert "name it with --columns document=COLUMN" in said


def test_verify_and_bench(own: Path, rows: Path, tiny_invoke: Invoke) -> None:
    done = tiny_invoke(
        "verify", own, "--texts", rows, "--json", "--backends", "onnxruntime,optimum"
    )
    found = json.loads(done.stdout)
    assert (found["texts"], found["within_tolerance"]) == (len(ROWS), True)
    assert {row["name"] for row in found["not_run"]} == {"fp32", "int8", "int4", "fp16"}
    assert all("asked with single texts" in row["reason"] for row in found["not_run"])
    subject = f"{own}:fp32"
    measured = tiny_invoke("bench", subject, "--texts", rows, "--rounds", 1, "--json")
    assert measured.exit_code == 0, measured.stderr
    assert json.loads(measured.stdout)["texts"] == len(ROWS)


def test_bench_against_a_bundle_for_single_texts(
    pairs: Path, tiny_bundle_copy: Path, tiny_invoke: Invoke
) -> None:
    def renamed(manifest: dict[str, Any]) -> None:
        for label, name in zip(manifest["labels"], ("yes", "no"), strict=True):
            label["name"] = name

    tiny.edit_json(tiny_bundle_copy / "trimexport.json", renamed)
    said = tiny_invoke("bench", f"{pairs}:fp32", "--against", tiny_bundle_copy).stderr
    assert "takes text, the bundle query, document; give one that takes the same texts" in said


def test_calibrate_and_fit(own: Path, rows: Path, tmp_path: Path, tiny_invoke: Invoke) -> None:
    for options in (("--content-free",), ("--texts", rows)):
        done = tiny_invoke("calibrate", own, *options, "--json")
        assert done.exit_code == 0, done.stderr
    assert read_manifest(own).calibration is not None
    fitted = tmp_path / "fitted"
    done = tiny_invoke("fit", own, "--examples", rows, "-o", fitted)
    assert done.exit_code == 0, done.stderr
    assert read_manifest(fitted).fit is not None
    card = (fitted / "README.md").read_text(encoding="utf-8")
    assert '{"query": "your query", "document": "your document"}' in card
    assert "tokens for all fields and what stands between them; document is cut, at its end" in card
    said = tiny_invoke("eval", fitted, rows, "--variant", "fp32").stderr
    assert f"the head was fitted on {len(ROWS)} texts of {rows}" in said


def test_inspect(tiny_invoke: Invoke) -> None:
    question = ("--model", tiny.tiny_model(), "--labels", "yes,no", "--prompt", tiny.PAIR)
    done = tiny_invoke("inspect", *question)
    assert "tokens before the fields, 5 between and 6 after them, which leaves" in done.stdout
    said = tiny_invoke("inspect", *question, "--text", "dull").stderr
    assert "--text is one text, and the prompt takes several: query, document; drop --text" in said


def test_suggest(rows: Path, tiny_invoke: Invoke) -> None:
    question = ("--model", tiny.tiny_model(), "--labels", "yes,no", "--prompt", tiny.PAIR)
    done = tiny_invoke("suggest", *question, "--examples", rows, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == {"yes": 3, "no": 3}
