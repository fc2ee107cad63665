"""Examples in the prompt: the choice, and how they are written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from trimexport import BuildSpec, SpecError, plan, read_recipe
from trimexport.prompt.few_shot import Shot, choose_shots, turns_of, write_shots
from trimexport.prompt.template import parse_template

LABELS = ("positive", "negative")
ROWS = [(f"film {i} is good", "positive") for i in range(9)] + [
    (f"film {i} is bad", "negative") for i in range(5)
]


def write(path: Path, rows: Iterable[tuple[str, object]]) -> Path:
    lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def spec(path: Path, shots: int = 2, **options: object) -> BuildSpec:
    given = {"model": "m", "labels": LABELS, "prompt": tiny.PROMPT, "shots": shots, **options}
    return BuildSpec(few_shot=path, **given)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(st.permutations(ROWS), st.integers(1, 4), st.integers(0, 3))
def test_the_choice_is_balanced_and_does_not_depend_on_the_file_s_order(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    count: int,
    seed: int,
) -> None:
    directory = tmp_path_factory.mktemp("few")
    found = choose_shots(spec(write(directory / "a.jsonl", rows), count, seed=seed))
    assert Counter(shot.word for shot in found) == dict.fromkeys(LABELS, count)
    right = dict(ROWS)
    assert all(right[shot.text] == shot.word for shot in found)
    assert len({shot.text for shot in found}) == 2 * count
    again = write(directory / "b.jsonl", [*ROWS, *reversed(rows)])  # every text twice
    assert choose_shots(spec(again, count, seed=seed)) == found
    more = choose_shots(spec(again, count + 1, seed=seed))
    assert [shot for shot in more if shot in found] == list(found)


def test_the_seed_chooses_and_mixes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    found = [choose_shots(spec(path, 3, seed=seed)) for seed in range(20)]
    assert len({frozenset(shots) for shots in found}) > 15
    orders = Counter(tuple(shot.word for shot in shots) for shots in found)
    assert len(orders) > 8, "labels come in many orders"
    assert choose_shots(spec(path, 3, seed=7)) == found[7]


def test_a_text_with_two_labels_is_no_example(tmp_path: Path) -> None:
    rows = [("good", "positive"), ("odd", "positive"), ("odd", "negative"), ("bad", "negative")]
    found = choose_shots(spec(write(tmp_path / "a.jsonl", rows), 1))
    assert {shot.text for shot in found} == {"good", "bad"}


def test_all_kinds_of_files(tmp_path: Path) -> None:
    expected = choose_shots(spec(write(tmp_path / "a.jsonl", ROWS)))
    lines = "".join(f"{text},{label}\n" for text, label in ROWS)
    (tmp_path / "a.csv").write_text("text,label\n" + lines, encoding="utf-8")
    texts, labels = zip(*ROWS, strict=True)
    table = pyarrow.table({"text": texts, "label": labels})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        assert choose_shots(spec(tmp_path / name)) == expected


def test_the_first_word_of_a_verbalizer_is_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    found = choose_shots(spec(path, 1, verbalizers={"positive": ("great", "good")}))
    assert {shot.word for shot in found} == {"great", "negative"}


@pytest.mark.parametrize(
    ("template", "written"),
    [
        ("Review: {text}\nSentiment:", "Review: a\nb {{c}}\nSentiment: good\n\n"),
        ("Review: {text}\nSentiment: ", "Review: a\nb {{c}}\nSentiment: good\n\n"),
        ("{{x}} {text}\nis\n", "{{x}} a\nb {{c}}\nis\ngood\n\n"),
        ('{text}\nIt is "', 'a\nb {{c}}\nIt is "good\n\n'),
        ("{text}", "a\nb {{c}} good\n\n"),
    ],
)
def test_how_an_example_is_written(template: str, written: str) -> None:
    """As the template, with the space that a label has there; its own line breaks stay."""
    found = write_shots(parse_template(template), [Shot("a\nb {c}", "good")])
    assert found.source == written + template
    assert write_shots(parse_template(template), []).source == template


def test_a_word_with_its_own_space() -> None:
    found = write_shots(parse_template("{text}\nis\n"), [Shot("a", " good")])
    assert found.source == "a\nis\n good\n\n{text}\nis\n"


def test_turns() -> None:
    found = turns_of(parse_template("Is it? {text} "), [Shot("a", " good")])
    assert found == [
        {"role": "user", "content": "Is it? a "},
        {"role": "assistant", "content": "good"},
    ]


def test_a_recipe_with_examples(tmp_path: Path, tiny_model: Path) -> None:
    write(tmp_path / "examples.jsonl", ROWS)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"model = {json.dumps(str(tiny_model))}\nlabels = ['positive', 'negative']\n"
        f"prompt = {json.dumps(tiny.PROMPT)}\nfew_shot = 'examples.jsonl'\nshots = 1\nseed = 3\n",
        encoding="utf-8",
    )
    found = read_recipe(recipe)
    assert (found.few_shot, found.shots, found.seed) == (tmp_path / "examples.jsonl", 1, 3)
    expected = write_shots(parse_template(tiny.PROMPT), choose_shots(found))
    planned = plan(found)
    assert planned.prompt.template == expected
    assert planned.prompt.examples == tuple(shot.text for shot in choose_shots(found))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 2}, "shots is given without a file of examples; name one with --few-shot"),
        ({"seed": 1}, "seed is given without a file of examples; name one with --few-shot"),
        ({"few_shot": Path("a.csv")}, r"a\.csv are given without how many .* with --shots"),
        ({"few_shot": Path("a.csv"), "shots": 0}, "shots is 0; give 1 or more"),
    ],
)
def test_a_spec_that_says_half(options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        BuildSpec(model="m", labels=LABELS, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no text"),
        ([*ROWS, ("a", "mixed")], "line 15: the label 'mixed' is none of positive, negative; corr"),
        ([("a", None), ("b", "positive")], "line 1: no label; give it one, or leave the line out"),
        (
            [*ROWS[:9], ("a", "negative"), ("a", "negative")],
            'has 1 different texts of label "negative", and 2 of each label are asked for; add',
        ),
        (
            [("a <eos>", "positive"), ("b", "positive"), ("c", "negative"), ("d", "negative")],
            "the example 'a <eos>' holds <eos>, a control token of the model; leave it out",
        ),
        (
            [(f"{label} {'x ' * 30}{i}", label) for i in range(2) for label in LABELS],
            "of 128 tokens and leaves none for a text; shorten it",
        ),
    ],
)
def test_examples_that_cannot_be_used(
    tiny_model: Path, tmp_path: Path, rows: list[tuple[str, str]], message: str
) -> None:
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(SpecError) as error:
        plan(spec(path, model=str(tiny_model)))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "a\n", "has no labels; give a .jsonl, .csv or .parquet"),
        ("a.csv", "text\na\n", 'it has: text; give it the columns "text" and "label"'),
        ("a.csv", "review,label\na,b\n", 'review, label; give it the columns "text" and "label"'),
    ],
)
def test_files_without_examples(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(SpecError) as error:
        choose_shots(spec(tmp_path / name))
    assert message in str(error.value)
    assert "--" not in str(error.value)
