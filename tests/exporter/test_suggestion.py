"""Choosing words: candidates, the search, the numbers against the untrimmed model, the recipe."""

from __future__ import annotations

import itertools
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from models import GEMMA_MINI, Untrimmed, needs_data, read_jsonl
from trimexport import BuildSpec, SpecError, Suggestion, Texts, plan, read_recipe, suggest
from trimexport.evaluation.intervals import wilson
from trimexport.planning import Setting, set_up
from trimexport.suggestion.candidates import FORM, MODEL, NAME, SYNONYM, candidates_of
from trimexport.suggestion.recipe import recipe
from trimexport.suggestion.render import as_dict, caution, low_mass, table
from trimexport.suggestion.search import Answers, over_others, score, search

LABELS = ("positive", "negative")
TEXTS = ("a gorgeous movie", "dull", "two hours\nthat feel like five", "a warm film", "bad", "fine")
GOLD = np.array([0, 1, 1, 0, 1, 0])


def examples(labels: tuple[str, ...] = LABELS) -> Texts:
    return Texts(TEXTS, tuple(labels[place] for place in GOLD))


def answers(seed: int, examples: int, columns: int, labels: int) -> Answers:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(examples, columns)).astype(np.float32)
    probabilities = np.exp(logits - 9)
    gold = np.arange(examples) % labels
    return Answers(logits, probabilities, gold)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 4), st.integers(1, 5))
def test_every_combination_is_scored_as_by_hand(seed: int, labels: int, size: int) -> None:
    given_answers = answers(seed, 12, 9, labels)
    random = np.random.default_rng(seed)
    pools = [random.choice(9, size, replace=False).tolist() for _ in range(labels)]
    found = search(given_answers, pools)
    expected = {it for it in itertools.product(*pools) if len(set(it)) == labels}
    assert {it.columns for it in found.combinations} == expected
    assert len(found.combinations) == len(expected)
    assert found.whole
    for it in found.combinations:
        logits = given_answers.logits[:, it.columns]
        assert it.right == sum(logits.argmax(1) == given_answers.gold)
        assert (it.accuracy, it.interval) == (it.right / 12, wilson(it.right, 12))
        mass = given_answers.probabilities[:, it.columns].sum(1).mean()
        assert it.mass == pytest.approx(mass, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_the_order(seed: int) -> None:
    """Within a standard error of the best by mass, below by accuracy, then by mass."""
    found = search(answers(seed, 40, 10, 2), [range(5), range(5, 10)])
    rights = [it.right for it in found.combinations]
    best = max(rights) / 40
    assert found.equal_from == pytest.approx(best - (best - wilson(max(rights), 40)[0]) / 1.959964)
    near = [it for it in found.combinations if it.accuracy >= found.equal_from]
    assert list(found.combinations[: len(near)]) == near
    masses = [it.mass for it in near]
    assert masses == sorted(masses, reverse=True)
    rest = [(it.right, it.mass) for it in found.combinations[len(near) :]]
    assert rest == sorted(rest, reverse=True)


def test_an_accuracy_that_the_examples_cannot_tell_apart_does_not_decide() -> None:
    """Words that the model never says, and that are right by chance once more often."""
    gold = np.array([0] * 50 + [1] * 50)
    said = np.where(gold[:, None] == [0, 1], 2.0, 0.0)
    said[:10] = said[:10, ::-1]  # 90 right
    lucky = said - 20
    lucky[0] = lucky[0, ::-1]  # 91 right
    logits = np.concatenate([said, lucky], 1).astype(np.float32)
    found = search(Answers(logits, np.exp(logits - 3), gold), [(0, 2), (1, 3)])
    assert [it.right for it in found.combinations[:2]] == [90, 91]
    assert found.combinations[0].columns == (0, 1)
    lucky[:10] = -20 + np.where(gold[:10, None] == [0, 1], 2.0, 0.0)  # 100 right
    logits = np.concatenate([said, lucky], 1).astype(np.float32)
    found = search(Answers(logits, np.exp(logits - 3), gold), [(0, 2), (1, 3)])
    assert (found.combinations[0].columns, found.combinations[0].right) == ((2, 3), 100)


def test_too_many_combinations_keep_the_best_words() -> None:
    given_answers = answers(1, 30, 20, 2)
    pools = [range(10), range(10, 20)]
    found = search(given_answers, pools, most=30)
    assert not found.whole
    used = [{it.columns[label] for it in found.combinations} for label in (0, 1)]
    assert len(used[0]) * len(used[1]) == len(found.combinations) == 25
    means = [given_answers.probabilities[given_answers.gold == at].mean(0) for at in (0, 1)]
    for label, pool in enumerate(pools):
        liked = (means[label] - means[1 - label])[list(pool)[1:]]
        best = [pool[1 + at] for at in np.argsort(-liked)[:4]]
        assert used[label] == {pool[0], *best}


def test_many_labels_are_ascended_label_by_label() -> None:
    """Each label has one column that is right, at another place for each."""
    labels, size = 9, 5
    random = np.random.default_rng(3)
    gold = np.arange(90) % labels
    logits = random.normal(size=(90, labels * size)).astype(np.float32)
    pools = [range(label * size, (label + 1) * size) for label in range(labels)]
    right = tuple(pool[label % size] for label, pool in enumerate(pools))
    for label, column in enumerate(right):
        logits[gold == label, column] += 9
    given_answers = Answers(logits, np.exp(logits - 15), gold)
    found = search(given_answers, pools)
    assert not found.whole
    assert len(found.combinations) < 20_000
    assert found.combinations[0].columns == right
    assert all(len(set(it.columns)) == labels for it in found.combinations)
    assert len({it.columns for it in found.combinations}) == len(found.combinations)
    again = score(given_answers, np.array([right]))[0]
    assert found.combinations[0] == again


def test_over_others() -> None:
    means = np.array([[0.6, 0.1], [0.2, 0.1], [0.1, 0.4]], np.float32)
    expected = [[0.45, -0.15], [-0.15, -0.15], [-0.3, 0.3]]
    assert np.allclose(over_others(means), expected)


def _setting(prompt: str, labels: tuple[str, ...] = LABELS) -> Setting:
    return set_up(BuildSpec(model=str(GEMMA_MINI), labels=labels, prompt=prompt))


def _token(setting: Setting, token: str) -> int:
    return int(setting.tokenizer.whole.token_to_id(token))


def test_candidates_after_a_colon_have_their_space() -> None:
    found = _setting(tiny.PROMPT)
    liked = np.zeros(8000, np.float32)
    tokens = ["▁great", "able", "▁the", "<eos>", "▁", ".", "<0x41>", "▁Sports", "▁good"]
    for at, token in enumerate(tokens):
        liked[_token(found, token)] = 0.5 - at / 100
    liked[_token(found, "▁bad")] = 1e-4  # hardly preferred
    pool = candidates_of("positive", ["good", "sports"], liked, found)
    assert [(it.word, it.token, it.origin) for it in pool] == [
        ("positive", "▁positive", NAME),
        ("good", "▁good", SYNONYM),
        ("sports", "▁sports", SYNONYM),
        ("Sports", "▁Sports", FORM),
        ("great", "▁great", MODEL),
        ("the", "▁the", MODEL),
    ]
    assert all(_token(found, it.token) == it.token_id for it in pool)


def test_candidates_after_a_line_break_come_with_and_without_a_space() -> None:
    found = _setting("Review: {text}\nSentiment:\n")
    liked = np.zeros(8000, np.float32)
    liked[[_token(found, "▁great"), _token(found, "the")]] = 0.5
    pool = candidates_of("good", [], liked, found)
    words = {it.word: it for it in pool}
    assert {"good", " good", " great", "the"} <= set(words)
    assert (words[" good"].token, words[" great"].origin) == ("▁good", MODEL)
    for it in pool:
        built = plan(
            BuildSpec(
                model=str(GEMMA_MINI),
                labels=("good", "negative"),
                prompt="Review: {text}\nSentiment:\n",
                verbalizers={"good": (it.word,)},
            )
        )
        assert built.verbalizer is not None
        assert built.verbalizer.token_ids[0] == it.token_id, "a build reads the same token"


def test_given_words_may_be_several_tokens_and_their_forms_may_not() -> None:
    found = _setting(tiny.PROMPT, ("very good", "negative"))
    pool = candidates_of("very good", ["wonderfulness"], np.zeros(8000, np.float32), found)
    assert [it.word for it in pool] == ["very good", "wonderfulness"]
    assert pool[0].token == "▁very"


@pytest.fixture(scope="module")
def suggested() -> Suggestion:
    spec = BuildSpec(model=str(tiny.tiny_model()), labels=LABELS, prompt=tiny.PROMPT)
    words = {"positive": ["good", "great"], "negative": ["bad"]}
    return suggest(spec, replace(examples(), source="work/dev.jsonl"), words)


def test_the_numbers_are_the_untrimmed_model_s(suggested: Suggestion) -> None:
    judge = Untrimmed(tiny.tiny_model())
    rows = [judge.ids(tiny.PROMPT.replace("{text}", text)) for text in TEXTS]
    logits = np.stack([judge.logits(row).numpy() for row in rows])
    probabilities = np.exp(logits - np.log(np.exp(logits).sum(1, keepdims=True)))
    assert suggested.examples == (3, 3)
    assert suggested.names is not None
    for choice in (*suggested.choices, suggested.names):
        tokens = [it.token_id for it in choice.words]
        assert choice.scores.right == (logits[:, tokens].argmax(1) == GOLD).sum()
        expected = probabilities[:, tokens].sum(1).mean()
        assert choice.scores.mass == pytest.approx(expected, rel=1e-3)
    assert [it.word for it in suggested.names.words] == list(LABELS)
    for label, words in enumerate(suggested.words):
        for it in words:
            token = probabilities[:, it.candidate.token_id]
            assert it.own == pytest.approx(token[label == GOLD].mean(), rel=1e-3)
            assert it.others == pytest.approx(token[label != GOLD].mean(), rel=1e-3)
        assert [it.own for it in words] == sorted((it.own for it in words), reverse=True)
    origins = Counter(it.candidate.origin for words in suggested.words for it in words)
    assert origins[NAME] == 2
    assert origins[SYNONYM] == 3
    assert origins[MODEL] >= 5
    liked = probabilities[GOLD == 0].mean(0) - probabilities[GOLD == 1].mean(0)
    model = [it.candidate for it in suggested.words[0] if it.candidate.origin == MODEL]
    assert all(liked[it.token_id] > 1e-3 for it in model)


def test_what_is_printed_is_what_json_has(suggested: Suggestion) -> None:
    text, value = table(suggested, 3), as_dict(suggested, 3)
    assert len(value["choices"]) == 3
    assert value["compared"] == len(suggested.choices) > 3
    for choice in (*value["choices"], value["names"]):
        assert f"{choice['accuracy']:.2%}" in text
        assert f"{choice['interval'][0]:.2%} to {choice['interval'][1]:.2%}" in text
    assert "6 examples (3 positive, 3 negative)" in text
    assert "their names  positive  negative" in text
    assert set(value["words"]) == set(LABELS)


def test_the_caution_compares_with_the_names(suggested: Suggestion) -> None:
    best, names = suggested.choices[0], suggested.names
    assert names is not None
    same = replace(suggested, choices=(names,))
    assert caution(same).endswith("so judge the bundle by other ones")
    other = replace(best, words=(), scores=replace(best.scores, interval=(0.0, 1.0)))
    assert "so the difference may be luck" in caution(replace(suggested, choices=(other,)))
    other = replace(best, words=(), scores=replace(best.scores, interval=(1.1, 1.2)))
    assert "luck" not in caution(replace(suggested, choices=(other,)))


def test_a_low_label_mass_is_said(suggested: Suggestion) -> None:
    best = suggested.choices[0]

    def of(mass: float) -> str | None:
        choice = replace(best, scores=replace(best.scores, mass=mass))
        return low_mass(replace(suggested, choices=(choice,)))

    assert of(0.5) is None
    said = of(0.0042)
    assert said is not None
    assert "hold only 0.42% of the model's probability" in said
    assert "trimexport inspect --text" in said


def test_a_recipe_builds_what_was_suggested(suggested: Suggestion, tmp_path: Path) -> None:
    path = tmp_path / "place" / "recipe.toml"
    path.parent.mkdir()
    path.write_text(recipe(suggested, path), encoding="utf-8")
    assert "# dev.jsonl: accuracy " in path.read_text(encoding="utf-8")
    spec = read_recipe(path)
    best = suggested.choices[0].words
    assert Path(spec.model).resolve() == tiny.tiny_model().resolve()
    assert spec.labels == LABELS
    assert spec.prompt == tiny.PROMPT
    assert spec.verbalizers == {it: (w.word,) for it, w in zip(LABELS, best, strict=True)}
    verbalizer = plan(spec).verbalizer
    assert verbalizer is not None
    assert verbalizer.token_ids == tuple(it.token_id for it in best)
    assert suggested.best_spec == replace(suggested.spec, verbalizers=spec.verbalizers)


def test_a_recipe_keeps_every_character(suggested: Suggestion, tmp_path: Path) -> None:
    labels = ('a "b" \\', "日\x7f\n😀.=")
    spec = BuildSpec(
        model="x/y",
        revision="v1",
        labels=labels,
        prompt="{{é}} {text}\t:",
        chat=True,
        system="Say\x00 so",
    )
    text = recipe(replace(suggested, spec=spec, source="d\nev.csv"), tmp_path / "recipe.toml")
    assert tomllib.loads(text)["labels"] == list(labels)
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    words = suggested.choices[0].words
    verbalizers = {label: (it.word,) for label, it in zip(labels, words, strict=True)}
    assert read_recipe(tmp_path / "recipe.toml") == replace(spec, verbalizers=verbalizers)


def test_names_that_cannot_stand_for_their_labels() -> None:
    spec = BuildSpec(
        model=str(tiny.tiny_model()), labels=("very good", "very bad"), prompt=tiny.PROMPT
    )
    found = suggest(spec, examples(spec.labels), {"very bad": ["bad"]})
    assert (found.names, found.no_names) == (
        None,
        'several begin with "▁very", so a build reads them whole',
    )
    assert 'not compared: several begin with "▁very"' in table(found, 3)
    assert as_dict(found, 3)["names"] is None
    assert all(len({it.token_id for it in choice.words}) == 2 for choice in found.choices)
    assert caution(found).endswith("so judge the bundle by other ones")
    spec = replace(spec, labels=("\u16a0", "bad"))
    found = suggest(spec, examples(spec.labels))
    assert found.no_names == '"\u16a0" cannot be read after this prompt'


def test_a_synonym_that_cannot_be_read() -> None:
    spec = BuildSpec(model=str(tiny.tiny_model()), labels=LABELS, prompt=tiny.PROMPT)
    with pytest.raises(SpecError, match="is not in the model's vocabulary"):
        suggest(spec, examples(), {"positive": ["\u16a0"]})


def test_words_that_the_model_was_trained_on_are_found() -> None:
    """gemma-mini answers positive and negative, whatever the labels are called."""
    rows = read_jsonl(needs_data("sst2", "dev.jsonl"))[:200]
    names = {"positive": "good", "negative": "bad"}
    gold = tuple(names[row["label"]] for row in rows)
    spec = BuildSpec(model=str(GEMMA_MINI), labels=("good", "bad"), prompt=tiny.PROMPT)
    found = suggest(spec, Texts(tuple(row["text"] for row in rows), gold))
    assert [it.word for it in found.choices[0].words] == ["positive", "negative"]
    assert {it.origin for it in found.choices[0].words} == {MODEL}
    assert found.choices[0].scores.mass > 0.99
    assert found.names is not None
    assert found.names.scores.accuracy < found.choices[0].scores.interval[0]


def test_a_score_that_no_words_are_compared_by(tiny_model: Path) -> None:
    spec = BuildSpec(model=str(tiny_model), labels=("good", "bad"), score="log-odds")
    with pytest.raises(SpecError, match="the score is log-odds, and words are compared by a soft"):
        suggest(spec, examples())
