"""Specs from Python, recipes and the command line's spellings."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from trimexport import BuildSpec, SpecError, read_recipe
from trimexport.spec import SCORES, parse_names, parse_verbalizers
from trimexport_runtime.score import INDEPENDENT, KINDS

WHOLE = """
model = "google/gemma-2b"
revision = "9cf48e5"
adapter = "me/my-adapter"
prompt = "Review: {text}\\nSentiment:"
labels = ["positive", "negative"]
precision = ["fp32"]
max_tokens = 256
truncate = "start"
notice = "Terms apply."
chat = true
system = "Answer in one word."
score = "log-odds"
score_scale = 2
score_shift = -1.5

[verbalizers]
positive = ["good", "great"]
negative = "bad"
"""
NEEDED = 'model = "m"\nprompt = "{text}"\nlabels = ["a", "b"]\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Any:
    """Write a recipe and give its path."""

    def write(text: str) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_recipe_names_everything(recipe: Any) -> None:
    assert read_recipe(recipe(WHOLE)) == BuildSpec(
        model="google/gemma-2b",
        revision="9cf48e5",
        adapter="me/my-adapter",
        prompt="Review: {text}\nSentiment:",
        labels=("positive", "negative"),
        precision=("fp32",),
        max_tokens=256,
        truncate="start",
        notice="Terms apply.",
        chat=True,
        system="Answer in one word.",
        score="log-odds",
        score_scale=2.0,
        score_shift=-1.5,
        verbalizers={"positive": ("good", "great"), "negative": ("bad",)},
    )


def test_a_recipe_needs_only_three_keys(recipe: Any) -> None:
    spec = read_recipe(recipe(NEEDED))
    assert spec == BuildSpec(model="m", prompt="{text}", labels=("a", "b"))
    assert (spec.chat, spec.system) == (False, None)
    assert read_recipe(recipe(f"\ufeff{NEEDED}")) == spec  # as Notepad writes it


def test_a_fine_tuned_classifier_s_recipe_needs_the_model_alone(recipe: Any) -> None:
    spec = read_recipe(recipe('model = "m"'))
    assert spec == BuildSpec(model="m")
    assert (spec.labels, spec.prompt) == ((), None)


def test_a_model_beside_the_recipe_is_found_there(recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    assert Path(read_recipe(recipe(NEEDED)).model) == tmp_path / "m"


def test_a_model_that_is_not_beside_the_recipe_keeps_its_name(recipe: Any) -> None:
    assert read_recipe(recipe(NEEDED)).model == "m"


@pytest.mark.parametrize("key", ["model", "adapter", "tokenizer", "few_shot"])
def test_a_name_that_the_system_refuses_is_not_beside_the_recipe(recipe: Any, key: str) -> None:
    name = "a" * 300
    text = f'{NEEDED if key != "model" else ""}\n{key} = "{name}"\n'
    spec = read_recipe(recipe(text + ("shots = 1" if key == "few_shot" else "")))
    assert str(getattr(spec, key)) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = ", "is not a TOML file"),
        (NEEDED + 'labells = ["a"]', "unknown key 'labells'; known are model, labels"),
        ('prompt = "{text}"\nlabels = ["a", "b"]', "model missing; a recipe names model, prompt"),
        ("chat = true", "model missing"),
        (NEEDED + 'chat = "yes"', "chat is 'yes', it has to be true or false"),
        (NEEDED + "chat = 1", "chat is 1, it has to be true or false"),
        (NEEDED + "chat = true\nsystem = 3", "system is 3, it has to be a string"),
        (NEEDED + "chat = true\nsystem = ['x']", "system is ['x'], it has to be a string"),
        (NEEDED + "system = 'x'", "a system turn is given without --chat"),
        (NEEDED + "chat = false\nsystem = 'x'", "a system turn is given without --chat"),
        (NEEDED.replace('"m"', "3"), "model is 3, it has to be a string"),
        (NEEDED.replace('["a", "b"]', '"a,b"'), "labels is 'a,b', it has to be a list of strings"),
        (
            NEEDED.replace('["a", "b"]', "[1, 2]"),
            "labels is [1, 2], it has to be a list of strings",
        ),
        (NEEDED + 'precision = "fp32"', "precision is 'fp32', it has to be a list of strings"),
        (NEEDED + "precision = [32]", "precision is [32], it has to be a list of strings"),
        (NEEDED + "max_tokens = '9'", "max_tokens is '9', it has to be a whole number"),
        (NEEDED + "max_tokens = true", "max_tokens is True, it has to be a whole number"),
        (NEEDED + "max_tokens = 0", "max-tokens is 0; give 1 or more"),
        (NEEDED + "truncate = 'middle'", 'truncate is "middle"; give one of end, start'),
        (NEEDED + "precision = ['fp8']", "precision fp8 cannot be built"),
        (NEEDED + "precision = ['fp32', 'fp32']", "precision fp32,fp32 cannot be built"),
        (NEEDED + "precision = []", "precision (none) cannot be built"),
        (NEEDED + "verbalizers = {a = 3}", "verbalizers is {'a': 3}, it has to be a table"),
        (NEEDED + "verbalizers = {a = ['x', 3]}", "it has to be a table such as {positive"),
        (NEEDED + "verbalizers = ['x']", "it has to be a table such as {positive"),
        (NEEDED + "verbalizers = {a = []}", 'label "a" is given no words'),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said(recipe: Any, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        read_recipe(recipe(text))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"score": "sigmoid"}, 'score is "sigmoid"; give one of softmax, log-odds, logit'),
        ({"score": "logit", "score_scale": 0.0}, "score-scale is 0, with which every score"),
        ({"score": "logit", "score_scale": math.inf}, "score-scale is inf, with which"),
        ({"score": "logit", "score_shift": math.nan}, "score-shift is nan, with which"),
        ({"score_scale": 2.0}, "score-scale and score-shift change a single score"),
        ({"score_shift": 1.0}, "drop them, or give --score log-odds or logit"),
    ],
)
def test_a_score_that_cannot_be_built(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        BuildSpec(model="m", labels=("a", "b"), **given)


def test_a_recipe_s_scale_is_a_number(recipe: Any) -> None:
    for value in ("true", '"2"'):
        text = f'{NEEDED}score = "log-odds"\nscore_scale = {value}\n'
        with pytest.raises(SpecError, match="it has to be a number"):
            read_recipe(recipe(text))


def test_scores_are_called_what_the_runtime_calls_them() -> None:
    assert set(SCORES) == {*KINDS} - {INDEPENDENT}


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="does not exist"):
        read_recipe(tmp_path / "none.toml")


def test_a_recipe_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="is not a TOML file"):
        read_recipe(tmp_path / "recipe.toml")


def test_labels_are_separated_by_commas() -> None:
    assert parse_names("positive, negative") == ("positive", "negative")
    assert parse_names("very positive,Sci/Tech") == ("very positive", "Sci/Tech")
    assert parse_names("a,,b") == ("a", "", "b")


def test_words_keep_the_space_before_them() -> None:
    found = parse_verbalizers(["positive=good,great ", "very bad = awful"])
    assert found == {"positive": ("good", "great"), "very bad": (" awful",)}


@pytest.mark.parametrize("item", ["positive", "=good", " =good"])
def test_words_need_a_label(item: str) -> None:
    with pytest.raises(SpecError, match="has no label and words; write label=word,word"):
        parse_verbalizers([item])


def test_a_label_gets_its_words_once() -> None:
    with pytest.raises(SpecError, match='names "positive" twice; give its words in one'):
        parse_verbalizers(["positive=good", "positive=great"])
