"""The search for the best combination of words, one for each label. It knows columns of numbers
alone, no words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimexport.evaluation.intervals import Z, wilson

COMBINATIONS = 20_000  # the most that are scored
_FEWEST = 4  # candidates of a label, below which all are kept and the search is by label
_AT_ONCE = 1 << 22  # logits in memory at once

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """The model's answers to the examples.

    `logits` are float32 [examples, columns], with a column for each token that is a candidate of
    any label, and `probabilities` their probabilities among the whole vocabulary. `gold` holds the
    right answers' places among the labels, int64 [examples].
    """

    logits: Floats
    probabilities: Floats
    gold: Places


@dataclass(frozen=True)
class Combination:
    """A column for each label, and what it is worth: how many examples it answers rightly, which
    share that is, the 95 % interval of that share, and the mean over the examples of the labels'
    share of the vocabulary's probability."""

    columns: tuple[int, ...]
    right: int
    accuracy: float
    interval: tuple[float, float]
    mass: float


@dataclass(frozen=True)
class Search:
    """The combinations that were scored, the best first.

    Accuracies from `equal_from` on are within one standard error of the best, so the examples do
    not tell them apart: they count as equal (the rule of one standard error, Breiman et al. 1984,
    Classification and Regression Trees, 3.4.3). Equal ones are ordered by label mass. `whole` says
    that no combination of the pools was left out.
    """

    combinations: tuple[Combination, ...]
    equal_from: float
    whole: bool


def search(answers: Answers, pools: Sequence[Sequence[int]], most: int = COMBINATIONS) -> Search:
    """Score combinations of one column from each label's pool. Those in which two labels have the
    same column are left out.

    All are scored if there are at most `most`. If there are more, each label keeps fewer columns:
    its first, and those whose probability is higher for its own examples than for the others'. If
    a label would keep fewer than four, all keep theirs and the best combination is looked for label
    by label (coordinate ascent), which may miss it.
    """
    keep = longest = max(map(len, pools))
    while keep > 1 and math.prod(min(keep, len(pool)) for pool in pools) > most:
        keep -= 1
    means = [answers.probabilities[answers.gold == at].mean(axis=0) for at in range(len(pools))]
    liked = over_others(np.stack(means))
    if keep == longest or keep >= _FEWEST:
        kept = [_best(pool, scores, keep) for pool, scores in zip(pools, liked, strict=True)]
        rows = list(itertools.product(*kept))
    else:
        rows = _ascend(answers, pools, liked)
    table = np.array(rows, np.int64).reshape(len(rows), len(pools))
    scored = score(answers, table[_distinct(table)])
    most_right = max((combination.right for combination in scored), default=0)
    equal_from = _equal_from(most_right, len(answers.gold))
    scored.sort(key=lambda combination: (-min(combination.accuracy, equal_from), -combination.mass))
    return Search(tuple(scored), equal_from, whole=keep == longest)


def score(answers: Answers, table: Places) -> list[Combination]:
    """Score combinations: int64 [combinations, labels], each label's column."""
    mass = answers.probabilities.mean(axis=0, dtype=np.float64)[table].sum(axis=1)
    count = len(answers.gold)
    return [
        Combination(tuple(columns), right, right / count, wilson(right, count), share)
        for columns, right, share in zip(
            table.tolist(), _right(answers, table).tolist(), mass.tolist(), strict=True
        )
    ]


def _equal_from(right: int, count: int) -> float:
    """The share of right answers less its standard error, by Wilson's interval."""
    share = right / count
    return share - (share - wilson(right, count)[0]) / Z


def _right(answers: Answers, table: Places) -> Places:
    """How many examples each combination answers rightly, int64 [combinations]."""
    step = max(1, _AT_ONCE // (len(answers.gold) * table.shape[1]))
    counts = [
        (answers.logits[:, table[start : start + step]].argmax(axis=2) == answers.gold[:, None])
        .sum(axis=0)
        .astype(np.int64)
        for start in range(0, len(table), step)
    ]
    return np.concatenate(counts) if counts else np.zeros(0, np.int64)


def _distinct(table: Places) -> npt.NDArray[np.bool_]:
    """Whether each combination has a different column for every label, bool [combinations]."""
    ordered = np.sort(table, axis=1)
    return np.asarray((ordered[:, 1:] != ordered[:, :-1]).all(axis=1))


def over_others(means: Floats) -> Floats:
    """By how much each label's value is above the mean of the other labels' values, float32
    [labels, columns], like `means`."""
    return np.asarray(means - (means.sum(axis=0) - means) / (len(means) - 1), np.float32)


def _best(pool: Sequence[int], liked: Floats, keep: int) -> list[int]:
    """So many columns of a label: its first, and of the others those with the highest `liked`."""
    rest = sorted(pool[1:], key=lambda column: -liked[column])
    return [*pool[:1], *rest][:keep]


def _ascend(
    answers: Answers, pools: Sequence[Sequence[int]], liked: Floats
) -> list[tuple[int, ...]]:
    """The combinations that coordinate ascent meets: each label's column in turn is replaced by the
    best one, until none changes. It starts twice, from every label's first column and from its most
    liked one."""
    first = tuple(pool[0] for pool in pools)
    best = (scores[list(pool)].argmax() for pool, scores in zip(pools, liked, strict=True))
    alone = tuple(pool[at] for pool, at in zip(pools, best, strict=True))
    met: dict[tuple[int, ...], None] = {}
    for start in (first, alone):
        now: tuple[int, ...] = start
        before: tuple[int, ...] = ()
        while now != before:
            before = now
            for label, pool in enumerate(pools):
                rows = [(*now[:label], column, *now[label + 1 :]) for column in pool]
                met.update(dict.fromkeys(rows))
                table = np.array(rows, np.int64)
                distinct = table[_distinct(table)]
                if len(distinct):
                    scored = score(answers, distinct)
                    now = max(scored, key=lambda choice: (choice.right, choice.mass)).columns
    return list(met)
