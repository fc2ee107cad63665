"""Judge a bundle of labels that are true from a threshold on: independent ones, of which a text may
have several or none, and the first of two whose log-odds are the score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimexport.errors import SpecError
from trimexport.numerics import Floats
from trimexport.progress import Progress, Silent
from trimexport.texts import Columns
from trimexport_runtime import Classifier, Manifest, read_manifest
from trimexport_runtime.atomic_file import atomic_file
from trimexport_runtime.bundle import INDEPENDENT, LOG_ODDS, MANIFEST, to_json
from trimexport_runtime.inputs import Input

from .label_sets import read_label_sets
from .metrics import LabelScores
from .run import classified, variant_names

Truth = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MultiLabelScores:
    """What a variant's answers are worth if a label is true from `threshold` on.

    `exact` is the share of texts that are given all of their labels and no other. `micro_f1` is of
    all pairs of a text and a label together, `macro_f1` the mean of the labels' own, of those that
    any text has or was given. `best_threshold` gives the highest `micro_f1` on these texts, where
    it was looked for.
    """

    variant: str
    texts: int
    threshold: float
    exact: float
    micro_f1: float
    macro_f1: float
    labels: tuple[LabelScores, ...]
    best_threshold: float | None


def evaluate_independent(
    bundle: Path,
    data: Path,
    *,
    columns: Columns | None = None,
    variants: Sequence[str] = (),
    threshold: float | None = None,
    find: bool = False,
    progress: Progress | None = None,
) -> tuple[MultiLabelScores, ...]:
    """Classify texts with variants of `bundle`, and judge the answers by the texts' labels.

    Args:
        data: a `.jsonl`, `.csv` or `.parquet`: see `label_sets.read_label_sets`.
        columns: where the file has its texts and labels; None takes `text` and `label`.
        variants: names of variants; none is the fastest one, and `("all",)` every one.
        threshold: from which probability on a label is true; None is the bundle's.
        find: take the threshold that gives the highest micro F1 on these texts.

    Raises:
        SpecError: the bundle's score has no threshold, texts that cannot be read or have other
            labels, or a threshold that is no probability.
        trimexport_runtime.TrimexportRuntimeError: the bundle is damaged, or has no such variant.
    """
    manifest = read_manifest(bundle)
    names = thresholded(manifest, bundle)
    check_threshold(threshold)
    sample = read_label_sets(
        data, manifest.label_names, columns or Columns(), manifest.prompt.places
    )
    truth = np.array([[name in own for name in names] for own in sample.labels])
    found = []
    for variant in variant_names(variants, manifest):
        classifier = Classifier.load(bundle, variant=variant)
        shares = _shares(classifier, sample.texts, progress or Silent())[:, : len(names)]
        best = best_threshold(shares, truth) if find else None
        chosen = manifest.score.threshold if threshold is None else threshold
        used = chosen if best is None else best
        found.append(_scores(classifier.variant.name, names, shares, truth, used, best))
    return tuple(found)


def check_threshold(threshold: float | None) -> None:
    """Refuse a threshold that is no probability.

    Raises:
        SpecError: it is none.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise SpecError(f"the threshold is {threshold:g}; give a probability from 0 to 1, or auto")


def thresholded(manifest: Manifest, bundle: Path) -> tuple[str, ...]:
    """The labels of a bundle that are true from a threshold on: all that are independent, or of
    log-odds the first.

    Raises:
        SpecError: its score has no threshold.
    """
    if manifest.score.kind == INDEPENDENT:
        return manifest.label_names
    if manifest.score.kind == LOG_ODDS:
        return manifest.label_names[:1]
    raise SpecError(
        f"--threshold is of independent labels or log-odds, and the score of {bundle} is "
        f"{manifest.score.kind}; leave it out"
    )


def save_threshold(bundle: Path, threshold: float) -> None:
    """Let a bundle answer by another threshold from now on: its manifest says so, no graph
    changes."""
    manifest = read_manifest(bundle)
    score = replace(manifest.score, threshold=threshold)
    with atomic_file(bundle / MANIFEST) as stream:
        stream.write(to_json(replace(manifest, score=score)).encode())


def best_threshold(shares: Floats, truth: Truth) -> float:
    """The threshold, halfway between two probabilities that occur, that gives the highest micro F1.

    Args:
        shares, truth: the labels' probabilities, float64, and whether they are true, bool, both
            [texts, labels].
    """
    order = np.argsort(-shares, axis=None, kind="stable")
    falling, right = shares.ravel()[order], truth.ravel()[order].cumsum()
    given = np.arange(1, len(falling) + 1)
    f1 = 2 * right / (given + truth.sum())
    ends = np.append(falling[1:] < falling[:-1], True)  # equal ones are true together
    at = int(np.where(ends, f1, -1.0).argmax())
    below = falling[at + 1] if at + 1 < len(falling) else 0.0
    return float((falling[at] + below) / 2)


def text_lines(scores: MultiLabelScores) -> list[str]:
    """The scores as text for a terminal."""
    best = " (the best on these texts; judge it by others)" * (scores.best_threshold is not None)
    row = "{:<24} {:>9} {:>9} {:>9} {:>9}"
    pairs = (
        ("variant", f"{scores.variant}, {scores.texts:,} texts"),
        ("threshold", f"{scores.threshold:.6f}{best}"),
        ("all labels right", f"{scores.exact:.2%}"),
        ("micro F1", f"{scores.micro_f1:.2%}"),
        ("macro F1", f"{scores.macro_f1:.2%}"),
    )
    return [
        *(f"{name:<24} {value}" for name, value in pairs),
        "",
        row.format("label", "precision", "recall", "F1", "texts"),
        *(
            row.format(
                own.label, f"{own.precision:.1%}", f"{own.recall:.1%}", f"{own.f1:.1%}", own.support
            )
            for own in scores.labels
        ),
    ]


def _shares(classifier: Classifier, texts: Sequence[Input], progress: Progress) -> Floats:
    with progress.bar("classifying", len(texts)) as advance:
        predictions = classified(classifier, texts, advance)
    return np.array([prediction.probabilities for prediction in predictions])


def _scores(
    variant: str,
    names: Sequence[str],
    shares: Floats,
    truth: Truth,
    threshold: float,
    best: float | None,
) -> MultiLabelScores:
    given = shares >= threshold
    right, asked, said = (each.sum(axis=0) for each in (given & truth, truth, given))
    labels = label_scores(names, given, truth)
    seen = [own.f1 for own, any_ in zip(labels, asked + said, strict=True) if any_]
    return MultiLabelScores(
        variant=variant,
        texts=len(shares),
        threshold=threshold,
        exact=float((given == truth).all(axis=1).mean()),
        micro_f1=_share(2 * right.sum(), asked.sum() + said.sum()),
        macro_f1=float(np.mean(seen)) if seen else 0.0,
        labels=labels,
        best_threshold=best,
    )


def label_scores(names: Sequence[str], given: Truth, truth: Truth) -> tuple[LabelScores, ...]:
    """The scores of labels that texts were given, by those that they have, both bool [texts,
    labels]."""
    right, asked, said = (each.sum(axis=0) for each in (given & truth, truth, given))
    return tuple(
        LabelScores(name, _share(hit, out), _share(hit, of), _share(2 * hit, out + of), int(of))
        for name, hit, of, out in zip(names, right, asked, said, strict=True)
    )


def _share(part: Any, whole: Any) -> float:
    """A share of a whole, and 0 of nothing."""
    return float(part / whole) if whole else 0.0
