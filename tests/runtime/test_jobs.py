"""Files of results: a row for each record, whatever goes in and whatever comes out."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from scored_bundles import scored_bundle
from trimexport_runtime import Classifier
from trimexport_runtime.cli import main
from trimexport_runtime.jobs import parts
from trimexport_runtime.score import INDEPENDENT, LOG_ODDS

TEXTS = ["a gorgeous movie", 'with "quotes", and\ncommas', "", "it never comes together ✓"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(item) for item in arguments])


def rows_of(path: Path) -> list[dict[str, Any]]:
    """A file of results as dicts with the columns of .parquet."""
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as stream:
            return [_typed(row) for row in csv.DictReader(stream)]
    return [_flat(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _typed(row: dict[str, str]) -> dict[str, Any]:
    """CSV knows no types, and no difference between nothing and an empty string."""
    found: dict[str, Any] = {name: value or None for name, value in row.items()}
    if not row["error"]:
        found["text"] = row["text"]
    for name, value in found.items():
        if value is not None and name.startswith("probability"):
            found[name] = float(value)
        elif value is not None and name in ("line", "tokens"):
            found[name] = int(value)
        elif value is not None and name == "truncated":
            found[name] = value == "True"
    return found


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    each = row.pop("probabilities", {"negative": None, "positive": None, "mixed": None})
    names = ("text", "label", "probability", "truncated", "tokens", "error")
    flat = {f"probability_{label}": value for label, value in each.items()}
    return {**dict.fromkeys(names), **row, **flat}


def write(path: Path, texts: list[Any]) -> Path:
    """Texts as a file of the format that its name says."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(
            pyarrow.table({"id": list(range(len(texts))), "text": texts}), path
        )
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([["text"], *([text] for text in texts)])
    else:
        lines = (json.dumps({"text": text}) for text in texts)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("out", [".parquet", ".jsonl", ".csv"])
@pytest.mark.parametrize("source", [".parquet", ".jsonl"])
def test_a_row_for_each_record(
    bundle: Path, classifier: Classifier, tmp_path: Path, source: str, out: str
) -> None:
    texts = [*TEXTS, "long " * 600]
    given = write(tmp_path / f"in{source}", [*texts[:2], None, *texts[2:]])
    result = run("classify", bundle, "--file", given, "-o", tmp_path / f"out{out}")
    assert result.exit_code == 1, result.output
    assert "1 of the records could not be classified" in result.stderr
    assert f'in{source}, line 3: "text"' in result.stderr
    assert "Note: 1 of the texts were cut at the limit" in result.stderr
    found = rows_of(tmp_path / f"out{out}")
    bad = found.pop(2)
    assert (bad["file"], bad["line"], bad["label"], bad["text"]) == (f"in{source}", 3, None, None)
    assert bad["error"].startswith('"text"')
    assert [row["line"] for row in found] == [1, 2, 4, 5, 6]
    for row, text, answer in zip(found, texts, classifier.classify(texts), strict=True):
        assert (row["text"], row["label"], row["tokens"]) == (text, answer.label, answer.tokens)
        assert (row["truncated"], row["error"]) == (answer.truncated, None)
        each = [row[f"probability_{label}"] for label in classifier.labels]
        assert each == list(answer.probabilities)
        assert row["probability"] == max(each)
    left = sorted(it.name for it in tmp_path.iterdir())
    assert left == ["bundle", f"in{source}", f"out{out}"]


def test_columns_and_their_types(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    assert (
        run("classify", bundle, "--file", write(tmp_path / "a.csv", TEXTS), "-o", out).exit_code
        == 0
    )
    kinds = {field.name: str(field.type) for field in pyarrow.parquet.read_schema(out)}
    assert list(kinds) == [
        "file", "line", "text", "label", "probability", "probability_negative",
        "probability_positive", "probability_mixed", "truncated", "tokens", "error",
    ]  # fmt: skip
    assert [kinds[name] for name in ("line", "probability", "truncated", "label")] == [
        "int64", "double", "bool", "string",
    ]  # fmt: skip


def test_a_directory(bundle: Path, tmp_path: Path) -> None:
    """Its files in the order of their names, each record with its file; others are passed over."""
    folder = tmp_path / "in"
    (folder / "b").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    write(folder / "b" / "one.csv", ["b1", "b2"])
    write(folder / "a.jsonl", ["a1"])
    write(folder / "c.parquet", ["c1"])
    for name in ("notes.md", "_SUCCESS", "_old.jsonl", ".hidden/d.jsonl"):
        (folder / name).write_text("no texts")
    places = [("a.jsonl", 1), ("b/one.csv", 2), ("b/one.csv", 3), ("c.parquet", 1)]
    out = folder / "out.jsonl"  # among them: it is no input
    for again in ((), ("--force",)):
        assert run("classify", bundle, "--file", folder, "-o", out, *again).exit_code == 0
        found = rows_of(out)
        assert [(row["file"], row["line"]) for row in found] == places
        assert [row["text"] for row in found] == ["a1", "b1", "b2", "c1"]
    out.unlink()
    printed = run("classify", bundle, "--file", folder, "--json")
    lines = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [(line["file"], line["line"]) for line in lines] == places
    assert [line["index"] for line in lines] == [0, 1, 2, 3]


def test_several_processes_write_the_same_file(bundle: Path, tmp_path: Path) -> None:
    texts = [f"{text} {number}" for number in range(700) for text in TEXTS]
    given = write(tmp_path / "in.jsonl", texts)
    for workers in (1, 3):
        out = tmp_path / f"{workers}.parquet"
        result = run(
            "classify", bundle, "--file", given, "-o", out, "--workers", str(workers), "--json"
        )
        assert result.exit_code == 0, result.output
        summary = json.loads(result.stdout)
        assert (summary["records"], summary["scored"], summary["bad"]) == (2800, 2800, 0)
        assert summary["texts_per_second"] > 0
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "3.parquet").read_bytes()
    assert [row["text"] for row in rows_of(tmp_path / "1.parquet")] == texts


def test_an_empty_file_has_no_rows(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n\n")
    for name in ("out.parquet", "out.csv", "out.jsonl"):
        result = run("classify", bundle, "--file", tmp_path / "in.jsonl", "-o", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert rows_of(tmp_path / name) == []


def test_bad_lines_are_counted_and_the_first_are_named(bundle: Path, tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text("{\n" * 12 + '{"text": "good"}\n{"text": "\\ud800"}\n')
    result = run("classify", bundle, "--file", given, "-o", out)
    assert result.exit_code == 1
    assert "13 of the records could not be classified" in result.stderr
    assert "the first 10 are named" in result.stderr
    assert result.stderr.count("in.jsonl, line ") == parts.LISTED == 10
    assert [row["error"] is None for row in rows_of(out)] == [False] * 12 + [True, False]


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl", "out.csv"])
def test_a_text_whose_logits_are_no_numbers_costs_one_row(
    bundle: Path, tmp_path: Path, spoil: Callable[[Path, str], None], name: str
) -> None:
    spoil(bundle, "%")
    given, out = write(tmp_path / "in.jsonl", ["good", "% of it", "bad"]), tmp_path / name
    result = run("classify", bundle, "--file", given, "-o", out)
    assert result.exit_code == 1
    assert "1 of the records could not be classified" in result.stderr
    first, wrong, last = rows_of(out)
    assert wrong["error"].startswith("the variant fp32 gives it a logit that is no finite number")
    assert (wrong["label"], wrong["probability"]) == (None, None)
    assert first["error"] is last["error"] is None
    answers = run("classify", bundle, "--file", given, "--json")
    assert answers.exit_code == 1
    lines = [json.loads(line, parse_constant=pytest.fail) for line in answers.stdout.splitlines()]
    assert ["error" in line for line in lines] == [False, True, False]


PEAK = """
import resource, sys
from trimexport_runtime.cli import main
try:
    main(sys.argv[1:])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_input(bundle: Path, tmp_path: Path) -> None:
    """The same texts eight times over take no more memory: 2 MB of them, and 16."""
    once = [f"a movie {number} " + "words " * 160 for number in range(2_000)]
    peaks = []
    for times in (1, 8):
        given = tmp_path / f"{times}.jsonl"
        with given.open("w", encoding="utf-8") as stream:
            for _ in range(times):
                stream.writelines(json.dumps({"text": text}) + "\n" for text in once)
        command = ["classify", str(bundle), "--file", str(given), "--workers", "1", "--force"]
        command += ["-o", str(tmp_path / "out.parquet")]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *command], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] < peaks[0] + 12_000, peaks  # KiB


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume is about --output"),
        (["--workers", "2"], "--workers is about --output"),
        (["--engine", "ray"], "--engine is about --output"),
        (["a text", "-o", "out.jsonl"], "-o takes its texts from --file"),
        (["--file", "in.jsonl", "-o", "o.jsonl", "--resume", "--force"], "not both"),
    ],
)
def test_wrong_usage(bundle: Path, arguments: list[str], message: str) -> None:
    result = run("classify", bundle, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        (
            "in.jsonl",
            "out.txt",
            'has the extension ".txt"; results are written as .parquet, .jsonl',
        ),
        ("in.jsonl", "in.jsonl", "is where the texts are; choose another file with -o"),
        ("in.jsonl", "empty", 'has the extension ""'),
        ("in.jsonl", "folder.csv", "is a directory; name a file in it with -o"),
        ("in.jsonl", "none/out.jsonl", "cannot be written (No such file or directory)"),
        ("none.jsonl", "out.jsonl", "cannot be read (No such file or directory)"),
        ("in.md", "out.jsonl", 'has the extension ".md"'),
        ("empty", "out.jsonl", "is a directory without any .txt, .csv, .jsonl, .parquet in it"),
        ("broken.parquet", "out.jsonl", "cannot be read as Parquet"),
        ("other.parquet", "out.jsonl", 'has no column "text"; it has: words'),
        ("numbers.parquet", "out.jsonl", 'the column "text" of'),
    ],
)
def test_what_cannot_be_done(
    bundle: Path, tmp_path: Path, source: str, out: str, message: str
) -> None:
    write(tmp_path / "in.jsonl", TEXTS)
    (tmp_path / "in.md").write_text("text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    pyarrow.parquet.write_table(pyarrow.table({"words": ["a"]}), tmp_path / "other.parquet")
    write(tmp_path / "numbers.parquet", [1, 2])
    before = sorted(tmp_path.iterdir())
    result = run("classify", bundle, "--file", tmp_path / source, "-o", tmp_path / out)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_strings_of_every_kind(bundle: Path, tmp_path: Path) -> None:
    """Dictionary-encoded, large and view strings are strings; bytes without a text cost a row."""
    kinds = [
        pyarrow.array(TEXTS).dictionary_encode(),
        pyarrow.array(TEXTS, pyarrow.large_string()),
        pyarrow.array(TEXTS, pyarrow.string_view()),
    ]
    expected = None
    for number, column in enumerate(kinds):
        given, out = tmp_path / f"{number}.parquet", tmp_path / f"{number}.jsonl"
        pyarrow.parquet.write_table(pyarrow.table({"words": column}), given)
        assert (
            run("classify", bundle, "--file", given, "--column", "words", "-o", out).exit_code == 0
        )
        found = [{**row, "file": None} for row in rows_of(out)]
        assert expected in (None, found)
        expected = found
    raw = pyarrow.array([b"good", b"\xff", b"last"]).cast(pyarrow.string(), safe=False)
    pyarrow.parquet.write_table(pyarrow.table({"text": raw}), tmp_path / "raw.parquet")
    result = run("classify", bundle, "--file", tmp_path / "raw.parquet", "--json")
    assert result.exit_code == 1
    texts = [json.loads(line).get("text") for line in result.stdout.splitlines()]
    assert texts == ["good", None, "last"]


def test_parquet_without_pyarrow(bundle: Path, tmp_path: Path) -> None:
    """Everything else works where it is not installed, and Parquet says what to install."""
    (tmp_path / "pyarrow").mkdir()
    (tmp_path / "pyarrow" / "__init__.py").write_text("raise ImportError('not here')")
    write(tmp_path / "in.jsonl", TEXTS)
    variables = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        start = "from trimexport_runtime.cli import main; main()"
        command = [sys.executable, "-c", start, "classify", str(bundle), "--file", *arguments]
        return subprocess.run(command, env=variables, capture_output=True, text=True, cwd=tmp_path)

    assert ask("in.jsonl", "-o", "out.jsonl").returncode == 0
    for arguments in (("in.jsonl", "-o", "out.parquet"), ("in.parquet",)):
        (tmp_path / "in.parquet").touch()
        found = ask(*arguments)
        assert found.returncode == 1
        assert "install `trimexport-runtime[parquet]`" in found.stderr


@pytest.mark.parametrize(("kind", "column"), [(LOG_ODDS, "score"), (INDEPENDENT, "labels")])
@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_what_a_score_adds_to_the_results(
    tmp_path: Path, kind: str, column: str, ending: str
) -> None:
    bundle = scored_bundle(tmp_path / "bundle", kind, threshold=0.2)
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "a good film"}\n{"no": 1}\n', encoding="utf-8")
    output = tmp_path / f"out{ending}"
    done = CliRunner().invoke(
        main, ["classify", str(bundle), "--file", str(texts), "-o", str(output)]
    )
    assert done.exit_code == 1, done.output  # the second line has no text
    (expected,) = Classifier.load(bundle).classify(["a good film"])
    rows = {
        ".csv": lambda: list(csv.DictReader(output.read_text("utf-8").splitlines())),
        ".parquet": lambda: pyarrow.parquet.read_table(output).to_pylist(),
        ".jsonl": lambda: [json.loads(line) for line in output.read_text("utf-8").splitlines()],
    }[ending]()
    found = rows[0][column]
    if column == "score":
        assert float(found) == expected.score
    else:
        assert (found if isinstance(found, list) else found.split(",")) == list(expected.labels)
        assert expected.labels
    assert not rows[1].get(column)
