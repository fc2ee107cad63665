"""`trimexport-run rerank`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from runtime.conftest import MakeBundle
from trimexport_runtime import Classifier, Manifest
from trimexport_runtime.bundle import Field
from trimexport_runtime.cli import main

QUERY = "who wrote it"
PASSAGES = ["a gorgeous movie", "", "the plot is thin", "two\nlines and a tab\t", "old jokes"]
FIELDS = (
    Field("instruction", default="find answers"),
    Field("query", (9, 10), " "),
    Field("passage", (11,), " "),
)


@pytest.fixture
def relevance(make_bundle: MakeBundle) -> Path:
    """A bundle that takes a query and a passage, of together no more than 80 tokens."""

    def change(manifest: Manifest) -> Manifest:
        prompt = replace(manifest.prompt, fields=FIELDS)
        return replace(manifest, format_version=2, prompt=prompt)

    return make_bundle("relevance", tokens=80, change=change)


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["rerank", *map(str, arguments)], input=stdin)


def expected(bundle: Path, passages: list[str], **more: str) -> list[tuple[int, float]]:
    """The passages' places and scores by the classifier, the highest score first."""
    rows = [{"query": QUERY, "passage": it, **more} for it in passages]
    scores = [it.probabilities[0] for it in Classifier.load(bundle).classify(rows)]
    return sorted(enumerate(scores), key=lambda pair: -pair[1])


def test_the_table(relevance: Path) -> None:
    long = "a gorgeous movie " * 3 + "with a cast that shines and jokes that are old"
    passages = [*PASSAGES, long]
    done = run(relevance, QUERY, *passages)
    assert done.exit_code == 0, done.output
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    ranks = expected(relevance, passages)
    assert [score for score, _ in lines] == [f"{score:.4f}" for _, score in ranks]
    shown = {place: passages[place] for place, _ in ranks}
    shown |= {3: r"two\nlines and a tab\t", 5: long[:79] + "…"}
    assert [passage for _, passage in lines] == [shown[place] for place, _ in ranks]
    top = run(relevance, QUERY, *passages, "--top", 2)
    assert top.stdout.splitlines() == done.stdout.splitlines()[:2]
    assert run(relevance, QUERY, *passages, "--top", 99).stdout == done.stdout


def test_files_and_json(relevance: Path, tmp_path: Path) -> None:
    """With the lines that they have in the file; a line that cannot be read is said first."""
    path = tmp_path / "passages.jsonl"
    lines = [json.dumps({"body": it}) for it in PASSAGES]
    path.write_text("\n".join([*lines[:2], '{"no": 1}', *lines[2:]]), encoding="utf-8")
    done = run(relevance, QUERY, "--file", path, "--column", "body", "--json")
    assert done.exit_code == 1
    assert "1 of the passages could not be scored" in done.stderr
    bad, *found = map(json.loads, done.stdout.splitlines())
    assert bad["line"] == 3
    ranks = expected(relevance, PASSAGES)
    assert [it["score"] for it in found] == pytest.approx([score for _, score in ranks], abs=1e-6)
    assert [it["document"] for it in found] == [PASSAGES[place] for place, _ in ranks]
    assert all(it["line"] == it["index"] + 1 for it in found)
    assert [it["truncated"] for it in found] == [False] * 5


def test_stdin_and_an_instruction(relevance: Path) -> None:
    told = "is it <eos> old"
    done = run(relevance, QUERY, "-", "--json", "--instruction", told, stdin="old jokes\na film\n")
    assert done.exit_code == 0, done.output
    ranks = expected(relevance, ["old jokes", "a film"], instruction=told)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [it["index"] for it in found] == [place for place, _ in ranks]
    assert [it["score"] for it in found] == pytest.approx([score for _, score in ranks], abs=1e-6)
    assert ranks != expected(relevance, ["old jokes", "a film"])


def test_long_passages_are_cut_and_long_queries_refused(relevance: Path) -> None:
    done = run(relevance, QUERY, "movie " * 300, "old jokes")
    assert done.exit_code == 0
    assert "1 of the pairs had more than 80 tokens, and were cut at the end" in done.stderr
    first = json.loads(run(relevance, QUERY, "movie " * 300, "--json").stdout)
    assert first["truncated"] is True
    refused = run(relevance, "movie " * 300, "old jokes")
    assert refused.exit_code == 1
    assert "leave no room for passage" in refused.stderr
    assert "1 of the passages could not be scored" in refused.stderr


def test_wrong_usage(relevance: Path, bundle: Path, tmp_path: Path) -> None:
    for arguments, code, said in (
        ((relevance, QUERY), 2, "No passages: give PASSAGE arguments, --file FILE, or -"),
        ((relevance, QUERY, "a", "--file", "b.txt"), 2, "Give passages or --file, not both"),
        ((relevance, QUERY, "a", "-"), 2, "- reads texts from stdin and must stand alone"),
        ((relevance, QUERY, "a", "--column", "b"), 2, "give --file too"),
        ((relevance, QUERY, "a", "--top", 0), 2, "Invalid value for '--top'"),
        ((relevance, QUERY, "--file", tmp_path / "none.txt"), 1, "none.txt"),
        ((bundle, QUERY, "a"), 1, "has to be given one text ('text'), and ranking takes two"),
        ((tmp_path, QUERY, "a"), 1, "trimexport.json"),
    ):
        done = run(*arguments)
        assert (done.exit_code, said in done.stderr) == (code, True), done.output


def test_an_instruction_that_the_prompt_has_no_place_for(make_bundle: MakeBundle) -> None:
    def change(manifest: Manifest) -> Manifest:
        return replace(
            manifest, format_version=2, prompt=replace(manifest.prompt, fields=FIELDS[1:])
        )

    done = run(make_bundle(change=change), QUERY, "a", "--instruction", "find")
    assert done.exit_code == 1
    assert "no field 'instruction' with a default" in done.stderr
