"""A suggestion as a table for a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimexport.numerics import LOW_MASS
from trimexport.tables import columns, small_share
from trimexport_runtime.visible import visible

from .candidates import FORM, MODEL, NAME, SYNONYM
from .suggest import Choice, Suggestion, Word

WORDS_SHOWN = 8
_ORIGINS = {
    NAME: "its name",
    SYNONYM: "yours",
    FORM: "another spelling",
    MODEL: "the model's own",
}


def table(suggestion: Suggestion, top: int) -> str:
    """The best combinations, the labels' own names, and each label's words, for a terminal."""
    examples, labels = suggestion.examples, suggestion.spec.labels
    counts = ", ".join(f"{n:,} {visible(label)}" for n, label in zip(examples, labels, strict=True))
    compared = f"{len(suggestion.choices):,} combinations"
    left = "" if suggestion.whole else ", the most promising of more"
    return "\n".join(
        [
            f"{sum(examples):,} examples ({counts}); {compared} compared{left}",
            "",
            *_choice_lines(suggestion, top),
            f"Accuracies from {suggestion.equal_from:.2%} on are taken for equal (the best less a "
            "standard error), and",
            "ordered by label mass.",
            "",
            "Probability on the label's own examples, and on the others':",
            *_word_lines(suggestion),
        ]
    )


def _choice_lines(suggestion: Suggestion, top: int) -> list[str]:
    """The table of combinations: a header, the `top` best, and the labels' own names."""
    labels = suggestion.spec.labels
    rows: list[tuple[str, ...]] = [("", *labels, "accuracy", "95 %", "label mass")]
    rows += [_row(str(at), choice) for at, choice in enumerate(suggestion.choices[:top], 1)]
    if suggestion.names is not None:
        rows.append(_row("their names", suggestion.names))
    else:
        reason = f"not compared: {suggestion.no_names}"
        rows.append(("their names", *("-" for _ in labels), reason, "", ""))
    return columns([tuple(visible(cell) for cell in row) for row in rows])


def _row(name: str, choice: Choice) -> tuple[str, ...]:
    """A combination as a row of cells."""
    low, high = choice.scores.interval
    return (
        name,
        *(candidate.word for candidate in choice.words),
        f"{choice.scores.accuracy:.2%}",
        f"{low:.2%} to {high:.2%}",
        small_share(choice.scores.mass),
    )


def _word_lines(suggestion: Suggestion) -> list[str]:
    """The table of words: the likeliest of each label, their probabilities and their origin."""
    rows = [
        (
            visible(label),
            visible(word.candidate.word),
            small_share(word.own),
            small_share(word.others),
            _ORIGINS[word.candidate.origin],
        )
        for label, words in zip(suggestion.spec.labels, suggestion.words, strict=True)
        for word in words[:WORDS_SHOWN]
    ]
    return columns(rows)


def caution(suggestion: Suggestion) -> str:
    """A note that says what the first row does not prove."""
    best, names = suggestion.choices[0].scores, suggestion.names
    text = "Note: the words were chosen on these examples, so judge the bundle by other ones"
    if names is None or names.words == suggestion.choices[0].words:
        return text
    if names.scores.accuracy < best.interval[0]:
        return text
    return (
        f"{text}; the accuracy of the labels' own names lies within the first row's interval, so "
        "the difference may be luck"
    )


def low_mass(suggestion: Suggestion) -> str | None:
    """A warning where the model seldom says the first row's words; None where it does."""
    mass = suggestion.choices[0].scores.mass
    if mass >= LOW_MASS:
        return None
    return (
        f"warning: after this prompt the first row's words hold only {small_share(mass)} of the "
        "model's probability, so label mass is a weak reason to prefer them; see what the model "
        "would say with trimexport inspect --text, try a prompt that asks more plainly, or show "
        "it examples with --few-shot"
    )


def as_dict(suggestion: Suggestion, top: int) -> dict[str, Any]:
    """The suggestion for a program: the `top` best combinations, and all candidates."""
    labels, names = suggestion.spec.labels, suggestion.names
    return {
        "examples": dict(zip(labels, suggestion.examples, strict=True)),
        "equal_from": suggestion.equal_from,
        "compared": len(suggestion.choices),
        "all_compared": suggestion.whole,
        "choices": [_choice_dict(choice, labels) for choice in suggestion.choices[:top]],
        "names": None if names is None else _choice_dict(names, labels),
        "names_not_compared": suggestion.no_names,
        "words": {
            label: [_word_dict(word) for word in words]
            for label, words in zip(labels, suggestion.words, strict=True)
        },
    }


def _word_dict(word: Word) -> dict[str, Any]:
    return {
        **vars(word.candidate),
        "own_probability": word.own,
        "others_probability": word.others,
    }


def _choice_dict(choice: Choice, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "words": {label: word.word for label, word in zip(labels, choice.words, strict=True)},
        "accuracy": choice.scores.accuracy,
        "interval": list(choice.scores.interval),
        "label_mass": choice.scores.mass,
    }
