"""A prompt with several fields, from Python, files, the command line and jobs."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.conftest import MakeBundle
from trimexport_runtime import Classifier, InputError, Manifest, read_manifest
from trimexport_runtime.cli import main
from trimexport_runtime.columns import Column, columns_for
from trimexport_runtime.errors import ColumnError, NoRoomError
from trimexport_runtime.files import BadLine, Line, read_file
from trimexport_runtime.jobs import parts
from trimexport_runtime.jobs.job import Job
from trimexport_runtime.jobs.job import run as run_job
from trimexport_runtime.manifest import Field
from trimexport_runtime.progress import Progress
from trimexport_runtime.result_keys import text_keys

REUSE = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FIELDS = (Field("instruction", default="is it so"), Field("query"), Field("document"))
COLUMNS = columns_for(FIELDS)
ROWS: list[dict[str, Any]] = [
    {"query": "a movie", "document": "gorgeous, witty"},
    {"query": "", "document": "old jokes"},
    {"query": "a cast", "document": ""},
]
LONG = "word " * 100  # more than the limit of 64 tokens


WRITTEN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=9)


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(item) for item in arguments], input=stdin)


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as a file of the format that its name says; the first has every column."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            lines = csv.DictWriter(stream, rows[0])
            lines.writeheader()
            lines.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# from Python


TEXT = st.text("abc ,é\n", max_size=30)


def test_answers_of_pairs_do_not_depend_on_the_batch_or_how_they_are_given(pairs: Path) -> None:
    classifier = Classifier.load(pairs, threads=1, token_budget=200)

    @REUSE
    @given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=9))
    def classify(texts: list[tuple[str, str]]) -> None:
        together = classifier.classify(texts)
        assert together == classifier.classify([list(pair) for pair in texts])
        named = [{"document": document, "query": query} for query, document in texts]
        assert together == list(classifier.classify_stream(iter(named)))
        full = [{"instruction": "is it so", **row} for row in named]
        assert together == classifier.classify(full)
        alone = [classifier.classify([pair])[0] for pair in texts]
        assert [it.tokens for it in together] == [it.tokens for it in alone]
        for one, other in zip(together, alone, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
        assert np.allclose(
            classifier.logits(texts), [classifier.logits([it])[0] for it in texts], atol=1e-5
        )

    classify()


def test_another_instruction_is_another_row(pairs: Path) -> None:
    classifier = Classifier.load(pairs, threads=1)
    pair = {"query": "a", "document": "b"}
    default, other, none = (
        classifier.encode(pair | more).ids.tolist()
        for more in ({}, {"instruction": "never"}, {"instruction": ""})
    )
    assert default != other
    assert none == default[-len(none) :], "an empty text is a text"


def test_the_document_alone_is_cut(pairs: Path) -> None:
    classifier = Classifier.load(pairs, threads=1)
    whole, cut = classifier.classify([("a", "b"), ("a", LONG)])
    assert (whole.truncated, cut.truncated, cut.tokens) == (False, True, 64)
    with pytest.raises(NoRoomError, match=r"^text 1: instruction and query with what the prompt "):
        classifier.classify([("a", "b"), (LONG, "b")])
    with pytest.raises(NoRoomError, match="leave no room for document, the field that is cut"):
        classifier.encode((LONG, ""))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a", r"a list of tuples or dicts, this is a single str; .*\[\(query, document\)\]"),
        (("a", "b"), r"has single texts; put those that belong together into one: classify\(\[\("),
        (["a", "b"], r"has single texts; put those that belong together into one"),
        ({"query": "a", "document": "b"}, r"is a single dict; put it in a list: classify\(\[\{"),
        (7, r"texts must be a list of tuples or dicts, this is int"),
        ([("a", "b"), "c"], r"^text 1: this is one text, and the bundle's prompt takes several"),
        ([("a", "b"), {"query": "a"}], r"^text 1: the field 'document' is missing; it takes"),
        ([{"query": "a", "document": "b", "c": "d"}], r"^text 0: .* has no field 'c'; it takes"),
        ([{"query": "a", "document": None}], r"^text 0: document: a text must be a str, this is"),
        ([("a", "b", "c")], r"^text 0: 3 texts are given together; it takes an object with"),
    ],
)
def test_what_is_no_list_of_pairs(pairs: Path, texts: Any, message: str) -> None:
    classifier = Classifier.load(pairs, threads=1)
    for call in (classifier.classify, classifier.logits):
        with pytest.raises(InputError, match=message):
            call(texts)


def test_a_single_dict_is_no_list_of_texts(classifier: Classifier) -> None:
    message = r"texts must be a list of str, this is a single dict; put it in a list: classify\(\["
    with pytest.raises(InputError, match=message):
        classifier.classify({"text": "a"})  # type: ignore[arg-type]
    assert classifier.classify([{"text": "a"}]) == classifier.classify(["a"])


# columns


def test_the_columns_of_fields() -> None:
    only = (Field("review"),)
    assert columns_for(only) == (Column("review", "text"),)
    assert columns_for(only, "body") == columns_for(only, None, {"review": "body"})
    assert [it.needed for it in COLUMNS] == [False, True, True]
    named = columns_for(FIELDS, None, {"document": "passage", "instruction": "task"})
    assert named == (
        Column("instruction", "task"), Column("query", "query"), Column("document", "passage"),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"no field 'doc' for --columns; it has: instruction, que"):
        columns_for(FIELDS, None, {"doc": "passage"})
    with pytest.raises(InputError, match="with --columns query=COLUMN,document=COLUMN"):
        columns_for(FIELDS, "text")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_fields_are_columns(tmp_path: Path, kind: str) -> None:
    first = 2 if kind == "csv" else 1
    path = write(tmp_path / f"a.{kind}", [{"n": 1, **row} for row in ROWS])
    assert list(read_file(path, COLUMNS)) == [
        Line(first + at, row) for at, row in enumerate(ROWS)
    ], "a default is not asked for"
    path = write(tmp_path / f"b.{kind}", [{"instruction": "do", **row} for row in ROWS])
    found = list(read_file(path, COLUMNS, ("query",)))
    assert found[0] == Line(first, {"instruction": "do", **ROWS[0]}, others={"query": "a movie"})
    others = columns_for(FIELDS, None, {"query": "document", "document": "query"})
    (line, *_) = read_file(path, others)
    expected = {"instruction": "do", "query": "gorgeous, witty", "document": "a movie"}
    assert line == Line(first, expected)


@REUSE
@given(st.lists(st.fixed_dictionaries({"query": WRITTEN, "document": WRITTEN}), min_size=1))
def test_rows_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    for kind in ("csv", "jsonl", "parquet"):
        lines = read_file(write(folder / f"a.{kind}", rows), COLUMNS)
        assert [getattr(line, "text", None) for line in lines] == rows


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_null_is_a_bad_row_or_leaves_a_default(tmp_path: Path, kind: str) -> None:
    rows = [{"instruction": "do", **ROWS[0]}, {"instruction": None, **ROWS[0]}]
    path = write(tmp_path / f"a.{kind}", [*rows, {**rows[0], "document": None}])
    full, without, bad = read_file(path, COLUMNS)
    assert (full, without) == (Line(1, rows[0]), Line(2, ROWS[0]))
    assert isinstance(bad, BadLine)
    assert bad.reason.startswith('"document"')
    named = columns_for(FIELDS, None, {"instruction": "instruction"})
    assert [isinstance(line, BadLine) for line in read_file(path, named)] == [False, True, True]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_without_a_field(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"a.{kind}", [{"query": "a", "passage": "b"}])
    with pytest.raises(ColumnError, match=r'"document".*; it has: query, passage; name the column'):
        list(read_file(path, COLUMNS))
    with pytest.raises(ColumnError, match="of the field 'document' with --columns document=COLUMN"):
        list(read_file(path, columns_for(FIELDS, None, {"document": "text"})))
    named = columns_for(FIELDS, None, {"instruction": "task", "document": "passage"})
    with pytest.raises(ColumnError, match=r'no column "task"'):
        list(read_file(path, named))


def test_a_line_without_a_field(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"query": "a"}, {"query": 7, "document": "b"}, ROWS[0]])
    with path.open("a") as stream:
        stream.write('{"query": "a", "document": "b", "query": "c"}\n[]\n')
    reasons = [getattr(line, "reason", None) for line in read_file(path, COLUMNS)]
    assert reasons == [
        'the object has no key "document"; its keys: query',
        '"query": a text must be a str, this is int; convert it first',
        None,
        'the object has the key "query" twice; leave one out',
        'the line is not an object; write {"query": "...", "document": "..."}',
    ]


def test_a_column_of_a_field_without_strings(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"query": "a", "document": 7}])
    with pytest.raises(ColumnError, match=r"has the type int64, .* with --columns document=COLUMN"):
        list(read_file(path, COLUMNS))


def test_lines_hold_one_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\n")
    with pytest.raises(InputError, match=r"has one text a line, .* takes several: query, document"):
        read_file(path, COLUMNS)
    one = columns_for((Field("policy", default="b"), Field("text")))
    assert list(read_file(path, one)) == [Line(1, {"text": "a"})]


def test_keys_of_results_are_not_mixed_up() -> None:
    assert text_keys((Field("review"),)) == {"review": "text"}
    fields = [Field(name) for name in ("label", "text_label", "query", "probability_a", "text")]
    assert list(text_keys(fields).values()) == [
        "text_text_label", "text_label", "query", "text_probability_a", "text",
    ]  # fmt: skip


# the command line


def test_pairs_on_the_command_line(pairs: Path) -> None:
    result = run("classify", pairs, "--pair", "a movie", "so\nwitty", "--pair", "", "-", "--json")
    assert result.exit_code == 0, result.output
    answers = Classifier.load(pairs).classify([("a movie", "so\nwitty"), ("", "-")])
    first, second = objects(result)
    assert list(first)[:4] == ["index", "query", "document", "label"]
    assert (first["query"], first["document"]) == ("a movie", "so\nwitty")
    assert [it["label"] for it in (first, second)] == [it.label for it in answers]
    plain = run("classify", pairs, "--pair", "a movie", "so\nwitty")
    assert plain.stdout.split("\t")[2:] == ["a movie", "so\\nwitty\n"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "one text is given, and the bundle's prompt takes 2 together (query, document); "
         "give --pair QUERY DOCUMENT"),
        (["-"], "one text is given, and the bundle's prompt takes 2 together (query, document); "
         "give a --file with columns or keys of these names"),
        (["--file", "a.txt"], "a.txt has one text a line, and the bundle's prompt takes several"),
        (["--file", "a.csv", "--column", "query"], "--column names the column of a single field"),
        (["--file", "a.csv", "--columns", "doc=query"], "no field 'doc' for --columns"),
        (["--pair", LONG, "b"], "Error: 1 of the texts could not be classified"),
    ],
)  # fmt: skip
def test_what_cannot_be_given_to_a_prompt_of_two_fields(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv", ROWS)
    Path("a.txt").write_text("a\n")
    result = run("classify", pairs, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


def test_a_pair_for_one_field(bundle: Path) -> None:
    result = run("classify", bundle, "--pair", "a", "b")
    assert result.exit_code == 1
    assert "--pair gives two texts, and the bundle's prompt takes one (text)" in result.stderr


def test_one_text_where_the_other_field_has_a_default(make_bundle: MakeBundle) -> None:
    """On the command line, on standard input, and in lines of a file."""

    def change(manifest: Manifest) -> Manifest:
        fields = (Field("policy", default="be nice"), Field("text", before=(9,)))
        prompt = replace(manifest.prompt, fields=fields)
        return replace(manifest, format_version=2, prompt=prompt)

    bundle = make_bundle(change=change)
    (expected,) = Classifier.load(bundle).classify(["witty"])
    assert expected.tokens == Classifier.load(bundle).classify([{"text": "witty"}])[0].tokens
    Path(bundle, "a.txt").write_text("witty\n")
    for arguments in (("witty",), ("-",), ("--file", bundle / "a.txt")):
        (found,) = objects(run("classify", bundle, "--json", *arguments, stdin=b"witty"))
        assert (found["text"], found["tokens"]) == ("witty", expected.tokens)
        assert "policy" not in found
    pair = run("classify", bundle, "--pair", "a", "b")
    assert "--pair gives two texts, and the bundle's prompt takes one (text)" in pair.stderr


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("query", "'query' is not FIELD=COLUMN; write query=q,document=passage"),
        ("query=", "'query=' is not FIELD=COLUMN"),
        ("query=a,query=b", "the field 'query' is named twice; name each once"),
    ],
)
def test_columns_that_cannot_be_read(pairs: Path, named: str, message: str) -> None:
    result = run("classify", pairs, "--file", "a.csv", "--columns", named)
    assert result.exit_code == 2
    assert message in result.stderr
    for more in ((), ("-o", "out.csv")):
        both = run("classify", pairs, "--file", "a", "--column", "a", "--columns", "query=a", *more)
        assert "Give --column or --columns, not both." in both.stderr
    alone = run("classify", pairs, "--pair", "a", "b", "--columns", "query=a")
    assert "--columns names what --file has; give --file too." in alone.stderr


BAD: list[dict[str, Any]] = [
    {"q": "a movie", "document": "witty"},
    {"q": "a movie"},
    {"q": "a", "document": 7},
    {"q": LONG, "document": "b"},
    {"q": "a", "document": "", "more": "is passed over"},
]
REASONS = [
    None,
    'the object has no key "document"; its keys: q',
    '"document": a text must be a str, this is int; convert it first',
    "instruction and query with what the prompt has between the fields",
    None,
]


def test_a_row_that_is_bad_costs_a_row(pairs: Path, tmp_path: Path) -> None:
    """On standard output and in a job."""
    path = write(tmp_path / "a.jsonl", BAD)
    given = ("classify", pairs, "--file", path, "--columns", "query=q")
    printed = run(*given, "--json")
    job = run(*given, "-o", tmp_path / "out.jsonl")
    kept = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (printed.exit_code, job.exit_code) == (1, 1)
    assert "3 of the records could not be classified" in job.stderr
    for rows in (objects(printed), kept):
        for row, reason, bad in zip(rows, REASONS, BAD, strict=True):
            if reason is None:
                assert (row["query"], row["document"]) == (bad["q"], bad["document"])
                assert row["label"]
            else:
                assert row["error"].startswith(reason)


@pytest.mark.parametrize("out", ["csv", "parquet"])
def test_a_job_has_a_column_for_each_field(pairs: Path, tmp_path: Path, out: str) -> None:
    rows = [{"instruction": "do", **ROWS[0]}, {"instruction": None, **ROWS[1]}]
    output = tmp_path / f"out.{out}"
    given = ("classify", pairs, "--file", write(tmp_path / "a.parquet", rows), "-o", output)
    result = run(*given)
    assert result.exit_code == 0, result.output
    if out == "parquet":
        found = pyarrow.parquet.read_table(output).to_pylist()
    else:
        with output.open(newline="", encoding="utf-8") as stream:
            found = [{key: it or None for key, it in row.items()} for row in csv.DictReader(stream)]
    names = ["file", "line", "instruction", "query", "document", "label", "probability"]
    assert list(found[0])[: len(names)] == names
    assert [row["instruction"] for row in found] == ["do", None]
    assert [row["document"] for row in found] == [row["document"] for row in rows]
    expected = Classifier.load(pairs).classify([rows[0], ROWS[1]])
    assert [row["label"] for row in found] == [it.label for it in expected]


class Interrupted(Progress):
    """Progress that is interrupted after the second part."""

    parts = 0

    def advance(self, count: int = 1) -> None:
        self.parts += 1
        if self.parts == 2:
            raise KeyboardInterrupt


def test_a_job_goes_on_with_the_same_columns_alone(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.jsonl", [{**row, "q": row["query"]} for row in ROWS])
    given = ("classify", pairs, "--file", path, "--columns", "query=q")
    monkeypatch.setattr(parts, "PART_RECORDS", 1)
    run(*given, "-o", tmp_path / "whole.jsonl")
    output = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_job(Job(pairs, path, output, columns={"query": "q"}), Interrupted("texts"))
    assert not output.exists()
    other = run(*given[:-2], "-o", output, "--resume")
    assert "a job with another column" in other.stderr
    resumed = run(*given, "-o", output, "--resume")
    assert "3 records (2 of them before)" in resumed.stdout
    assert output.read_text() == (tmp_path / "whole.jsonl").read_text()


def test_info_shows_the_fields(pairs: Path, bundle: Path) -> None:
    lines = run("info", pairs).stdout.splitlines()
    assert [line for line in lines if line.startswith("field")] == [
        'field       instruction: "is it so" unless another is given',
        "field       query",
        "field       document: cut at the end where all together have more than 64 tokens",
    ]
    assert "text limit  64 tokens for all fields together" in lines
    assert not [line for line in run("info", bundle).stdout.splitlines() if line[:5] == "field"]
    fields = json.loads(run("info", pairs, "--json").stdout)["prompt"]["fields"]
    assert [it["name"] for it in fields] == [it.name for it in read_manifest(pairs).prompt.places]
