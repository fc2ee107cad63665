"""What was compared, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimexport.tables import columns, small_share
from trimexport_runtime.render import visible

from .candidates import FORM, MODEL, NAME, SYNONYM
from .suggest import Choice, Suggestion

WORDS_SHOWN = 8
_ORIGINS = {
    NAME: "its name",
    SYNONYM: "yours",
    FORM: "another spelling",
    MODEL: "the model's own",
}


def table(found: Suggestion, top: int) -> str:
    """The best combinations, the labels' own names, and each label's words, for a terminal."""
    labels = found.spec.labels
    rows: list[tuple[str, ...]] = [("", *labels, "accuracy", "95 %", "label mass")]
    rows += [_row(str(at), it) for at, it in enumerate(found.choices[:top], 1)]
    if found.names is not None:
        rows.append(_row("their names", found.names))
    else:
        rows.append(
            ("their names", *("-" for _ in labels), f"not compared: {found.no_names}", "", "")
        )
    shown = [tuple(visible(cell) for cell in row) for row in rows]
    counts = ", ".join(f"{n:,} {visible(it)}" for n, it in zip(found.examples, labels, strict=True))
    compared = f"{len(found.choices):,} combinations"
    left = "" if found.whole else ", the most promising of more"
    return "\n".join(
        [
            f"{sum(found.examples):,} examples ({counts}); {compared} compared{left}",
            "",
            *columns(shown),
            f"Accuracies from {found.equal_from:.2%} on are taken for equal (the best less a "
            "standard error), and",
            "ordered by label mass.",
            "",
            "Probability on the label's own examples, and on the others':",
            *_word_lines(found),
        ]
    )


def _row(name: str, choice: Choice) -> tuple[str, ...]:
    low, high = choice.scores.interval
    return (
        name,
        *(it.word for it in choice.words),
        f"{choice.scores.accuracy:.2%}",
        f"{low:.2%} to {high:.2%}",
        small_share(choice.scores.mass),
    )


def _word_lines(found: Suggestion) -> list[str]:
    rows = [
        (
            visible(label),
            visible(it.candidate.word),
            small_share(it.own),
            small_share(it.others),
            _ORIGINS[it.candidate.origin],
        )
        for label, words in zip(found.spec.labels, found.words, strict=True)
        for it in words[:WORDS_SHOWN]
    ]
    return columns(rows)


def caution(found: Suggestion) -> str:
    """What not to conclude from the first row."""
    best, names = found.choices[0].scores, found.names
    text = "Note: the words were chosen on these examples, so judge the bundle by other ones"
    if names is None or names.words == found.choices[0].words:
        return text
    if names.scores.accuracy < best.interval[0]:
        return text
    return (
        f"{text}; the accuracy of the labels' own names lies within the first row's interval, so "
        "the difference may be luck"
    )


def as_dict(found: Suggestion, top: int) -> dict[str, Any]:
    """The same for a program, with all candidates."""
    labels = found.spec.labels
    return {
        "examples": dict(zip(labels, found.examples, strict=True)),
        "equal_from": found.equal_from,
        "compared": len(found.choices),
        "all_compared": found.whole,
        "choices": [_choice(it, labels) for it in found.choices[:top]],
        "names": None if found.names is None else _choice(found.names, labels),
        "names_not_compared": found.no_names,
        "words": {
            label: [
                {**vars(it.candidate), "own_probability": it.own, "others_probability": it.others}
                for it in words
            ]
            for label, words in zip(labels, found.words, strict=True)
        },
    }


def _choice(choice: Choice, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "words": {it: word.word for it, word in zip(labels, choice.words, strict=True)},
        "accuracy": choice.scores.accuracy,
        "interval": list(choice.scores.interval),
        "label_mass": choice.scores.mass,
    }
