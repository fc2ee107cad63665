"""The regression that finds a head, and the draws and folds that it is judged by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimexport import Texts
from trimexport.bundle.written_head import Head
from trimexport.numerics import softmax
from trimexport.tuning import examples as material
from trimexport.tuning.regression import START_SCALES, Setting, _fit, fit_head, logits_of
from tuning import LABELS


def problem(
    labels: int, each: int = 30, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, Head, tuple[str, ...]]:
    """Hidden states of which the old head sees a part of what tells the labels apart."""
    generator = np.random.default_rng(seed)
    gold = np.repeat(np.arange(labels), each)
    centres = generator.normal(size=(labels, 12)) * 1.5
    hidden = centres[gold] + generator.normal(size=(len(gold), 12)) * generator.uniform(0.1, 5, 12)
    rows = centres + generator.normal(size=centres.shape)
    start = Head(rows.astype(np.float32), generator.normal(size=labels).astype(np.float32))
    return hidden, gold, start, tuple(f"text {place}" for place in range(len(gold)))


def _named(texts: tuple[str, ...], gold: np.ndarray) -> tuple[Texts, tuple[str, ...]]:
    """The texts with labels that are called by their numbers, and all labels."""
    names = tuple(map(str, range(gold.max() + 1)))
    return Texts(texts, tuple(names[place] for place in gold)), names


def _folds(texts: tuple[str, ...], gold: np.ndarray) -> np.ndarray:
    return material.fold_numbers(*_named(texts, gold))


@pytest.mark.parametrize("labels", [2, 4])
def test_the_order_of_labels_and_of_examples_does_not_matter(labels: int) -> None:
    hidden, gold, start, texts = problem(labels)
    found = fit_head(hidden, gold, start, _folds(texts, gold))
    generator = np.random.default_rng(1)
    order, names = generator.permutation(len(gold)), generator.permutation(labels)
    moved = np.argsort(names)[gold[order]]
    swapped = Head(start.weight[names], start.bias[names])
    folds = _folds(tuple(texts[it] for it in order), moved)
    other = fit_head(hidden[order], moved, swapped, folds)
    assert other.strength == found.strength
    assert other.held_out == pytest.approx(found.held_out[order][:, names], rel=1e-3, abs=1e-3)
    assert logits_of(other.head, hidden) == pytest.approx(
        logits_of(found.head, hidden)[:, names], rel=1e-3, abs=1e-3
    )


@pytest.mark.parametrize("labels", [2, 4])
def test_it_is_the_regression_that_scikit_learn_finds_without_a_start(labels: int) -> None:
    """Rows of zeros know nothing, so what is left is plain regression on standardised states."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    hidden, gold, start, _ = problem(labels)
    nothing = Head(np.zeros_like(start.weight), np.zeros_like(start.bias))
    head = _fit(hidden, gold, nothing, Setting(0.1, max(START_SCALES)))
    plain = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8, max_iter=10_000))
    expected = plain.fit(hidden, gold).predict_proba(hidden)
    assert softmax(logits_of(head, hidden)) == pytest.approx(expected, abs=1e-4)


def test_a_strong_penalty_leaves_the_old_head_s_logits_alone() -> None:
    hidden, gold, start, _ = problem(3)
    own = np.hstack([logits_of(start, hidden), np.ones((len(gold), 1))])

    def unexplained(strength: float) -> float:
        found = logits_of(_fit(hidden, gold, start, Setting(strength, max(START_SCALES))), hidden)
        left = found - own @ np.linalg.lstsq(own, found, rcond=None)[0]
        return float(left.var() / found.var())

    assert unexplained(1e-5) < 0.01
    assert unexplained(10.0) > 0.1


@pytest.mark.parametrize("knows", [True, False])
def test_what_the_old_head_knows_is_kept_and_no_more(knows: bool) -> None:
    """Eight examples a label cannot replace what a good head knows, nor should one that knows
    nothing stand in their way."""
    right: dict[str, list[float]] = {"found": [], "plain": [], "leaning": []}
    for seed in range(4):
        generator = np.random.default_rng(seed)
        centres = 0.35 * generator.normal(size=(4, 60))
        rows = centres if knows else generator.normal(size=centres.shape)
        start = Head(rows.astype(np.float32), np.zeros(4, np.float32))
        gold, asked = np.repeat(np.arange(4), 8), np.repeat(np.arange(4), 100)
        hidden, others = (
            centres[it] + generator.normal(size=(len(it), 60)) for it in (gold, asked)
        )
        fold = np.arange(len(gold)) % 4
        nothing = Head(np.zeros_like(start.weight), start.bias)
        for name, head in {
            "found": fit_head(hidden, gold, start, fold).head,
            "plain": fit_head(hidden, gold, nothing, fold).head,
            "leaning": _fit(hidden, gold, start, Setting(0.01, max(START_SCALES))),
        }.items():
            right[name].append(float((logits_of(head, others).argmax(1) == asked).mean()))
    found, plain, leaning = (float(np.mean(each)) for each in right.values())
    if knows:
        assert found > max(0.85, plain + 0.1)
    else:
        assert found > max(plain - 0.02, leaning + 0.1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 12), min_size=2, max_size=4), st.integers(0, 3))
def test_draws_and_folds(sizes: list[int], seed: int) -> None:
    gold = np.repeat(np.arange(len(sizes)), sizes)
    data, names = _named(tuple(f"text {place}" for place in range(len(gold))), gold)
    most = min(sizes)
    draws = [material.drawn_places(data, names, shots, seed) for shots in range(1, most + 1)]
    for shots, places in enumerate(draws, 1):
        assert np.bincount(gold[places]).tolist() == [shots] * len(sizes)
        assert set(places) <= set(draws[-1])
        assert len(set(places)) == len(places)
    found = material.fold_numbers(data, names)
    for label in range(len(sizes)):
        counts = np.bincount(found[gold == label], minlength=min(5, most))
        assert counts.max() - counts.min() <= 1
        assert len(counts) == min(5, most)
    others = [tuple(sorted(material.drawn_places(data, names, 1, it))) for it in range(20)]
    assert len(set(others)) > 1


def test_the_digest_is_of_texts_and_labels_in_any_order() -> None:
    yes, no = LABELS[:2]
    data = Texts(("a", "b", "c"), (yes, no, no))
    same = Texts(("c", "a", "b"), (no, yes, no))
    other = Texts(("a", "b", "c"), (no, no, yes))
    assert material.digest(data) == material.digest(same)
    assert material.digest(data) != material.digest(other)
