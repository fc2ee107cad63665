"""An evaluation of the answers to several questions, as text for a terminal."""

from __future__ import annotations

from .render import ROW
from .several_questions import QuestionScores, QuestionsEvaluated, QuestionsEvaluation

_TABLE = "{:<24} {:>9} {:>17} {:>9} {:>9}"


def text_lines(evaluated: QuestionsEvaluated) -> list[str]:
    """The lines for all variants, with an empty one between them."""
    lines = []
    for evaluation in evaluated.variants:
        lines += [*_lines(evaluation), ""]
    return lines[:-1]


def _lines(evaluation: QuestionsEvaluation) -> list[str]:
    """The table of one variant's questions, and the labels of each."""
    cut = f", {evaluation.truncated:,} of them cut" * bool(evaluation.truncated)
    lines = [
        f"{evaluation.variant} ({evaluation.provider}), {evaluation.texts:,} texts{cut}",
        "",
        _TABLE.format("question", "accuracy", "95 %", "macro F1", "texts"),
    ]
    for own in evaluation.questions:
        low, high = own.scores.interval
        interval, texts = f"{low:.1%} to {high:.1%}", f"{own.scores.texts:,}"
        numbers = (f"{own.scores.accuracy:.2%}", interval, f"{own.scores.macro_f1:.2%}", texts)
        lines.append(_TABLE.format(own.question, *numbers))
    mean = (f"{evaluation.accuracy:.2%}", "", f"{evaluation.macro_f1:.2%}", "")
    lines.append(_TABLE.format("mean", *mean).rstrip())
    for own in evaluation.questions:
        lines += ["", *_label_lines(own)]
    return lines


def _label_lines(own: QuestionScores) -> list[str]:
    """The labels of one question, and what a threshold on the last one's probability gives."""
    lines = [
        ROW.format(f"{own.question}:", "precision", "recall", "F1", "texts"),
        *(
            ROW.format(
                f"  {it.label}",
                f"{it.precision:.1%}",
                f"{it.recall:.1%}",
                f"{it.f1:.1%}",
                it.support,
            )
            for it in own.scores.labels
        ),
    ]
    if (last := own.threshold) is not None:
        it = last.scores
        lines.append(
            ROW.format(
                f"  from {last.threshold:.6f} on",
                f"{it.precision:.1%}",
                f"{it.recall:.1%}",
                f"{it.f1:.1%}",
                it.support,
            )
            + "  (the best F1 on these texts; judge it by others)" * last.found
        )
    return lines
