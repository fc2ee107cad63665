"""The recipes that ship can be read, and those of gemma-mini name the builds that they claim."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from fetch_real import CACHE
from trimexport import plan, read_recipe
from trimexport.prompt.template import parse_template
from trimexport.prompt.verbalizer import check_labels
from trimexport.source.prompts_file import prompt_for

MODELS = Path(__file__).resolve().parents[2] / "models"
RECIPES = sorted(MODELS.glob("*.toml"))
LABELS = {"sst2": ("positive", "negative"), "agnews": ("World", "Sports", "Business", "Sci/Tech")}
PAIRS = {
    "aspect": (("positive", "negative"), ("text", "aspect")),
    "nli": (("entailment", "neutral", "contradiction"), ("premise", "hypothesis")),
    "relevance": (("yes", "no"), ("query", "document")),
    "yesno": (("yes", "no"), ("passage", "question")),
}
"""The labels and the fields of tasks on two texts, of which the first is cut, or a document."""


def test_each_task_has_its_recipes() -> None:
    assert [path.stem for path in RECIPES] == [
        "agnews-gemma-2b",
        "agnews-gemma-mini",
        "agnews-gemma3-270m",
        "aspect-gemma3-270m",
        "banking77-gemma-2b",
        "bge-reranker-v2-gemma",
        "granite-guardian-3.1-2b",
        "guard-policies-gemma3-270m",
        "llama-guard-3-1b",
        "mxbai-rerank-base-v2",
        "nli-gemma3-270m",
        "qwen3-reranker-0.6b",
        "qwen3guard-gen-0.6b",
        "relevance-gemma3-270m",
        "shieldgemma-2b",
        "sst2-gemma-2b",
        "sst2-gemma-mini",
        "sst2-gemma3-270m",
        "yesno-gemma3-270m",
        "zerank-1-small",
    ]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_names_a_build_completely(path: Path) -> None:
    spec = read_recipe(path)
    check_labels(spec.labels, spec.score)
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    assert {"model", "prompt", "labels", "precision"} <= set(written)
    if "/" in spec.model and not spec.model.startswith((".", "google/gemma")):
        return  # a maker's own reranker or guard: see test_maker_formats
    assert parse_template(spec.prompt).suffix.startswith("\n")
    if path.stem.startswith("banking77"):  # its labels stand for themselves
        assert len(spec.labels) == 77
        return
    if spec.questions:  # their labels are the build's
        assert set(spec.verbalizers) == set(spec.labels or ())
        return
    task = path.stem.split("-")[0]
    assert spec.labels == (PAIRS[task][0] if task in PAIRS else LABELS[task])
    assert set(spec.verbalizers) == set(spec.labels)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_begins_with_what_it_is_and_its_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert f"trimexport build --recipe models/{path.name}" in text


@pytest.mark.parametrize("task", LABELS)
def test_gemma_2b_is_named_by_its_hub_id_and_revision(task: str) -> None:
    spec = read_recipe(MODELS / f"{task}-gemma-2b.toml")
    assert (spec.model, spec.revision) == ("google/gemma-2b", "main")


@pytest.mark.parametrize("task", PAIRS)
def test_pairs_of_which_the_longer_text_is_cut(task: str) -> None:
    """The recipe's prompt on a model that ships."""
    spec = read_recipe(MODELS / f"{task}-gemma3-270m.toml")
    planned = plan(replace(spec, model=str(MODELS / "gemma-mini"), tokenizer=None))
    _, names = PAIRS[task]
    assert planned.prompt.template.required == names
    cut = "document" if "document" in names else names[0]
    assert (planned.text_limit.field, planned.text_limit.truncate) == (cut, "end")
    assert planned.verbalizer.trie is None
    assert not planned.prompt.leads_differ


def test_the_policies_are_questions_of_one_pass() -> None:
    """The recipe's prompt on a model that ships."""
    spec = read_recipe(MODELS / "guard-policies-gemma3-270m.toml")
    planned = plan(replace(spec, model=str(MODELS / "gemma-mini"), tokenizer=None))
    assert planned.questions is not None
    assert len(planned.questions.answers) == 4
    assert [it.name for it in spec.questions] == ["harassment", "hate", "dangerous", "sexual"]


@pytest.mark.parametrize("task", [*LABELS, *PAIRS, "guard-policies"])
def test_gemma3_270m_is_looked_for_where_it_is_fetched_to(task: str) -> None:
    path = MODELS / f"{task}-gemma3-270m.toml"
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    place = (CACHE / "gemma3-270m").resolve()  # it may be a link to a disk with more room
    assert (path.parent / written["model"]).resolve() == place
    assert (path.parent / written["tokenizer"]).resolve().parent == place
    assert "https://ai.google.dev/gemma/terms" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("task", LABELS)
def test_gemma_mini_is_found_beside_its_recipe_with_the_prompt_of_its_card(task: str) -> None:
    planned = plan(read_recipe(MODELS / f"{task}-gemma-mini.toml"))
    assert planned.checkpoint.directory == MODELS / "gemma-mini"
    assert planned.spec.prompt == prompt_for(MODELS / "gemma-mini", LABELS[task])
    assert planned.verbalizer.notes == () or task == "agnews"
    assert planned.limit > 100
