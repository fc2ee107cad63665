"""Judge a bundle's answers to several questions by texts that have labels of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimexport.numerics import Floats
from trimexport.progress import Progress, Silent
from trimexport.texts import Columns
from trimexport_runtime import Classifier, Manifest, Prediction, read_manifest
from trimexport_runtime.questions import view_of, views

from .evaluate import notes_on
from .libraries import require_libraries
from .metrics import LabelScores, Scores, score
from .multi_label import Truth, best_threshold, check_threshold, label_scores
from .question_labels import QuestionLabels, read_question_labels
from .run import classified, variant_names


@dataclass(frozen=True)
class FromThreshold:
    """What answers are worth if a question's last label is its answer from the probability
    `threshold` on: the scores of that label. `found` says that no other threshold gives it a higher
    F1 on these texts."""

    threshold: float
    found: bool
    scores: LabelScores


@dataclass(frozen=True)
class QuestionScores:
    """What the answers to a question are worth on the texts that have a label of it. `threshold` is
    None where none was asked for, and of a question with more than two labels."""

    question: str
    labels: tuple[str, ...]
    scores: Scores
    threshold: FromThreshold | None


@dataclass(frozen=True)
class QuestionsEvaluation:
    """The answers of one variant, question by question; `accuracy` and `macro_f1` are the means
    over the questions. `truncated` counts the texts that were cut, of all `texts`."""

    variant: str
    provider: str
    texts: int
    truncated: int
    accuracy: float
    macro_f1: float
    questions: tuple[QuestionScores, ...]


@dataclass(frozen=True)
class QuestionsEvaluated:
    """The evaluations of a bundle's variants on the same texts; `notes` say what makes the texts a
    poor measure, `unjudged` which questions none of them has a label of."""

    notes: tuple[str, ...]
    unjudged: tuple[str, ...]
    variants: tuple[QuestionsEvaluation, ...]


def evaluate_questions(
    bundle: Path,
    data: Path,
    *,
    columns: Columns | None = None,
    variants: Sequence[str] = (),
    threshold: float | None = None,
    find: bool = False,
    progress: Progress | None = None,
) -> QuestionsEvaluated:
    """Classify texts with variants of `bundle`, and judge each question's answers by its labels.

    Args:
        data: a `.jsonl`, `.csv` or `.parquet`: see `question_labels.read_question_labels`.
        columns: where the file has its texts, and what it calls labels; None takes `text`.
        variants: names of variants; none is the fastest one, and `("all",)` every one.
        threshold: judge the last of two labels also as the answer from this probability on.
        find: the same, with the threshold that gives the highest F1 on these texts.

    Raises:
        EvaluationError: scikit-learn or matplotlib, the extra `eval`, is not installed.
        SpecError: texts that cannot be read or have other labels, or a threshold that is no
            probability.
        trimexport_runtime.TrimexportRuntimeError: the bundle is damaged, or has no such variant.
    """
    require_libraries("evaluating")
    progress = progress or Silent()
    manifest = read_manifest(bundle)
    check_threshold(threshold)
    data_of = read_question_labels(data, manifest, columns)
    notes = _notes(bundle, manifest, data_of)
    names = [question.name for question in manifest.questions]
    unjudged = tuple(name for name in names if name not in data_of.gold)
    for note in notes:
        progress.say(f"Note: {note}")
    if unjudged:
        progress.say(f"Note: {data} has no label of the question {', '.join(unjudged)}")
    found = []
    for variant in variant_names(variants, manifest):
        classifier = Classifier.load(bundle, variant=variant)
        with progress.bar("classifying", len(data_of.texts)) as advance:
            predictions = classified(classifier, data_of.texts, advance)
        found.append(_judged(classifier, predictions, data_of, threshold, find))
    return QuestionsEvaluated(notes, unjudged, tuple(found))


def _notes(bundle: Path, manifest: Manifest, data: QuestionLabels) -> tuple[str, ...]:
    """What makes the texts a poor measure of the bundle, question by question."""
    notes = (
        (f"{question.name}: {note}" for note in notes_on(bundle, view, data.of(question.name)))
        for question, view in zip(manifest.questions, views(manifest), strict=True)
        if question.name in data.gold
    )
    return tuple(note for own in notes for note in own)


def _judged(
    classifier: Classifier,
    predictions: Sequence[Prediction],
    data: QuestionLabels,
    threshold: float | None,
    find: bool,
) -> QuestionsEvaluation:
    """What a variant's answers to all texts are worth."""
    each = []
    for question in data.gold:
        labels = view_of(classifier.manifest, question)[0].label_names
        answers = [predictions[at].answers[question] for at in data.places(question)]
        shares = np.array([answer.probabilities for answer in answers])
        gold = data.of(question).places(labels)
        last = None
        if len(labels) == 2 and (find or threshold is not None):
            last = _last_label(labels[1], shares[:, 1:], gold[:, None] == 1, threshold)
        each.append(QuestionScores(question, labels, score(gold, shares, labels), last))
    return QuestionsEvaluation(
        variant=classifier.variant.name,
        provider=classifier.provider,
        texts=len(predictions),
        truncated=sum(prediction.truncated for prediction in predictions),
        accuracy=float(np.mean([own.scores.accuracy for own in each])),
        macro_f1=float(np.mean([own.scores.macro_f1 for own in each])),
        questions=tuple(each),
    )


def _last_label(label: str, shares: Floats, truth: Truth, threshold: float | None) -> FromThreshold:
    """The scores of a label that is given from a threshold on; None finds the best.

    Args:
        shares, truth: its probabilities, float64, and whether it is right, bool, both [texts, 1].
    """
    chosen = best_threshold(shares, truth) if threshold is None else threshold
    (scores,) = label_scores((label,), shares >= chosen, truth)
    return FromThreshold(chosen, threshold is None, scores)
