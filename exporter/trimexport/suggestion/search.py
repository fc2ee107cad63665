"""Score combinations of words, one for each label, and find the best. NumPy in, values out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimexport.evaluation.intervals import Z, wilson

COMBINATIONS = 20_000  # that are all scored
_FEWEST = 4  # candidates of a label that have to be left for it to be worth while
_AT_ONCE = 1 << 22  # logits that are looked at at once

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """What the model says on the examples.

    `logits` float32 [examples, columns], a column for each token that is a candidate of any label;
    `probabilities` the same as probabilities among the whole vocabulary; `gold` int64 [examples],
    the right answers' places among the labels.
    """

    logits: Floats
    probabilities: Floats
    gold: Places


@dataclass(frozen=True)
class Combination:
    """A column for each label; of the examples how many are answered rightly, the share's 95 %
    interval, and the labels' share of the vocabulary's probability on average."""

    columns: tuple[int, ...]
    right: int
    accuracy: float
    interval: tuple[float, float]
    mass: float


@dataclass(frozen=True)
class Search:
    """The combinations that were scored, the best first.

    Accuracies from `equal_from` on are within a standard error of the best, so the examples do not
    tell them apart: they are taken for equal and ordered by label mass, and so are equal ones below
    (the rule of one standard error, Breiman et al. 1984, Classification and Regression Trees,
    3.4.3). `whole` says that none of the pools' combinations was left out.
    """

    combinations: tuple[Combination, ...]
    equal_from: float
    whole: bool


def search(answers: Answers, pools: Sequence[Sequence[int]], most: int = COMBINATIONS) -> Search:
    """Score combinations of one column of each label's pool, without those in which two labels
    have the same column.

    All are scored if there are at most `most`. If there are more, so many of each label's columns
    are kept that there are not: first its first, then those that are likelier for its own examples
    than for the others'. With so many labels that few would be left, all are kept and the best
    combination is looked for label by label (coordinate ascent), so a better one may be missed.
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
    equal_from = _equal_from(max((it.right for it in scored), default=0), len(answers.gold))
    ordered = sorted(scored, key=lambda it: (-min(it.accuracy, equal_from), -it.mass))
    return Search(tuple(ordered), equal_from, whole=keep == longest)


def score(answers: Answers, table: Places) -> list[Combination]:
    """Score combinations, int64 [combinations, labels] of columns."""
    mass = answers.probabilities.mean(axis=0, dtype=np.float64)[table].sum(axis=1)
    count = len(answers.gold)
    return [
        Combination(tuple(columns), right, right / count, wilson(right, count), share)
        for columns, right, share in zip(
            table.tolist(), _right(answers, table).tolist(), mass.tolist(), strict=True
        )
    ]


def _equal_from(right: int, count: int) -> float:
    """The share less its standard error, as Wilson's interval has it."""
    share = right / count
    return share - (share - wilson(right, count)[0]) / Z


def _right(answers: Answers, table: Places) -> Places:
    """How many examples each combination answers rightly, int64 [combinations]."""
    step = max(1, _AT_ONCE // (len(answers.gold) * table.shape[1]))
    found = [
        (answers.logits[:, table[start : start + step]].argmax(axis=2) == answers.gold[:, None])
        .sum(axis=0)
        .astype(np.int64)
        for start in range(0, len(table), step)
    ]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _distinct(table: Places) -> npt.NDArray[np.bool_]:
    """Which combinations have a column of its own for every label."""
    ordered = np.sort(table, axis=1)
    return np.asarray((ordered[:, 1:] != ordered[:, :-1]).all(axis=1))


def over_others(means: Floats) -> Floats:
    """By how much each label's value is above the mean of the other labels': float32 [labels,
    columns] of the same."""
    return np.asarray(means - (means.sum(axis=0) - means) / (len(means) - 1), np.float32)


def _best(pool: Sequence[int], liked: Floats, keep: int) -> list[int]:
    """The first of a label's columns, and the others that are best by themselves."""
    rest = sorted(pool[1:], key=lambda column: -liked[column])
    return [*pool[:1], *rest][:keep]


def _ascend(
    answers: Answers, pools: Sequence[Sequence[int]], liked: Floats
) -> list[tuple[int, ...]]:
    """The combinations that are met on the way from two starts, the first columns and the best by
    themselves, each label's column being changed in turn for the best one until nothing changes."""
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
                rows = [(*now[:label], it, *now[label + 1 :]) for it in pool]
                met.update(dict.fromkeys(rows))
                table = np.array(rows, np.int64)
                distinct = table[_distinct(table)]
                if len(distinct):
                    found = score(answers, distinct)
                    now = max(found, key=lambda it: (it.right, it.mass)).columns
    return list(met)
