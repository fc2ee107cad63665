"""`trimexport suggest` from the command line, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import families
from trimexport import read_recipe

Invoke = Callable[..., Result]
Refused = Callable[..., str]
LABELS = ("--labels", "positive,negative")
PROMPT = ("--prompt", "Review: {text}\\nSentiment:")


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    path = tmp_path / "dev.csv"
    rows = ("text,label", "a fine film,positive", "dull,negative", "warm,positive", "bad,negative")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_table_json_and_recipe(
    tiny_invoke: Invoke, tiny_model: Path, examples: Path, tmp_path: Path
) -> None:
    output = tmp_path / "work" / "recipes" / "r.toml"
    command = ("suggest", "--model", tiny_model, *LABELS, *PROMPT, "--examples", examples)
    command = (*command, "--synonyms", "positive=good,great", "--top", 3)
    done = tiny_invoke(*command, "-o", output)
    assert done.exit_code == 0, done.output
    assert "4 examples (2 positive, 2 negative)" in done.stdout
    assert f"trimexport build --recipe {output}" in done.stdout
    assert "reading the examples: " in done.stderr
    assert "Note: the words were chosen on these examples" in done.stderr

    found = json.loads(tiny_invoke(*command, "--json").stdout)
    assert len(found["choices"]) == 3
    assert found["recipe"] is None
    best = found["choices"][0]
    assert f"{best['accuracy']:.2%}" in done.stdout
    spec = read_recipe(output)
    assert spec.verbalizers == {label: (word,) for label, word in best["words"].items()}
    assert {"good", "great"} <= {it["word"] for it in found["words"]["positive"]}

    before = output.read_bytes()
    again = tiny_invoke(*command, "-o", output)
    assert (again.exit_code, again.stdout) == (1, "")
    assert f"Error: {output} exists; give --force to replace it" in again.stderr
    output.write_text("other", encoding="utf-8")
    forced = tiny_invoke(*command, "-o", output, "--force", "--json")
    assert forced.exit_code == 0, forced.output
    assert json.loads(forced.stdout)["recipe"] == str(output)
    assert output.read_bytes() == before
    inspected = tiny_invoke("build", "--recipe", output, "--max-tokens", 1, "-o", "out")
    assert "leaves none for a text" in inspected.stderr, "the recipe is read by a build"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", 'no column "text" in its first line; it has: nothing; give it the columns "text"'),
        ("text,label\n", "holds no text; give a file with one text a line at least"),
        ("text,label\na,fine\n", "the label 'fine' is none of positive, negative; correct it"),
        ("text,label\na,positive\nb,positive\n", "has no example of negative; words are chosen"),
    ],
)
def test_wrong_examples(
    tiny_refused: Refused, tiny_model: Path, tmp_path: Path, rows: str, message: str
) -> None:
    (tmp_path / "dev.csv").write_text(rows, encoding="utf-8")
    command = ("suggest", "--model", tiny_model, *LABELS, *PROMPT)
    assert message in tiny_refused(*command, "--examples", tmp_path / "dev.csv", "-o", "r.toml")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--synonyms", "mixed=fair"), 1, '--synonyms names "mixed", which is no label; the lab'),
        (("--synonyms", "positive"), 1, "--synonyms 'positive' has no label and words"),
        (("--synonyms", "positive=good,"), 1, 'label "positive" has an empty word'),
        (("--top", "0"), 2, "0 is not in the range x>=1"),
        (("-o", "."), 1, ". is a directory; name a file for the recipe with -o"),
        (("-o", "FILE/recipe.toml"), 1, "cannot be written"),
        (("--max-tokens", "3"), 2, "No such option"),
    ],
)
def test_wrong_options(
    tiny_refused: Refused,
    tiny_model: Path,
    examples: Path,
    options: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    given = [it.replace("FILE", str(examples)) for it in options]
    command = ("suggest", "--model", tiny_model, *LABELS, *PROMPT, "--examples", examples)
    assert message in tiny_refused(*command, *given, code=code)


def test_no_examples(tiny_refused: Refused) -> None:
    assert "Missing option '--examples'" in tiny_refused("suggest", *LABELS, code=2)
    said = tiny_refused("suggest", *LABELS, "--examples", "none.csv", code=2)
    assert "'none.csv' does not exist" in said


def test_a_fine_tuned_classifier(tiny_refused: Refused, examples: Path, tmp_path: Path) -> None:
    model = families.make("llama3", tmp_path / "stars", classifier=True, layers=1)
    said = tiny_refused("suggest", "--model", model, "--examples", examples)
    assert "is a fine-tuned classifier, whose labels need no words" in said
