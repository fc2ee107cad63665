"""What the untrimmed model would say after a text: how much of it are labels, and which words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimexport.errors import SpecError
from trimexport.memory import keep_large_blocks_apart, release
from trimexport.model.layerwise import LayerwiseModel
from trimexport.model.vocabulary import answer_states, likeliest
from trimexport.planning import Plan
from trimexport.progress import Progress, Silent
from trimexport.tables import columns, small_share
from trimexport_runtime.render import visible
from trimexport_runtime.tokenize import problem_of

COUNT = 10


@dataclass(frozen=True)
class SaidToken:
    """A token of the vocabulary, its probability at the answer's place, and the labels, mostly none
    or one, for which it stands."""

    token: str
    token_id: int
    probability: float
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Saying:
    """After one text: the probability that the label tokens have together, and the likeliest tokens
    of all, the likeliest first."""

    text: str
    label_mass: float
    tokens: tuple[SaidToken, ...]


def what_is_said(
    planned: Plan, texts: Sequence[str], progress: Progress | None = None
) -> tuple[Saying, ...]:
    """Run the untrimmed model, whole vocabulary and all, on prompt and texts.

    Raises:
        SpecError: a fine-tuned classifier, or a text that cannot be tokenised.
    """
    progress = progress or Silent()
    labels = _label_tokens(planned)
    for text in texts:
        if problem := problem_of(text):
            raise SpecError(f"--text: {problem}")
    keep_large_blocks_apart()
    release()
    model = LayerwiseModel(planned.checkpoint)
    with progress.bar("the untrimmed model", len(texts)) as tick:
        hidden = answer_states(model, planned, texts, tick)
        found = likeliest(model, hidden, COUNT, list(labels))
    masses, tokens = found.asked.double().sum(1).tolist(), found.token_ids.tolist()
    return tuple(
        Saying(
            text=text,
            label_mass=mass,
            tokens=tuple(
                SaidToken(planned.tokenizer.token(token), token, share, labels.get(token, ()))
                for token, share in zip(row, shares, strict=True)
            ),
        )
        for text, mass, row, shares in zip(
            texts, masses, tokens, found.probabilities.tolist(), strict=True
        )
    )


def _label_tokens(planned: Plan) -> dict[int, tuple[str, ...]]:
    """The tokens that stand for labels, and for which."""
    verbalizer = planned.verbalizer
    if verbalizer is None:
        raise SpecError(
            f"{planned.spec.model} is a fine-tuned classifier, which says nothing but its labels; "
            "drop --text"
        )
    found: dict[int, tuple[str, ...]] = {}
    for label, words in zip(verbalizer.labels, verbalizer.words, strict=True):
        for word in words:
            first = word.token_ids[0]
            found[first] = (*found.get(first, ()), label)
    return found


def saying_lines(said: Saying) -> list[str]:
    """For a terminal: the text, its label mass, and a line for each token."""
    rows = [
        (
            visible(it.token),
            f"({it.token_id})",
            small_share(it.probability),
            ", ".join(f"label {visible(label)}" for label in it.labels),
        )
        for it in said.tokens
    ]
    mass = small_share(said.label_mass)
    head = f'"{visible(said.text)}": label mass {mass}; the model would say'
    return [head, *(f"  {line}" for line in columns(rows))]
