"""The words that the untrimmed model would say after a text, and how much of that are labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trimexport.errors import SpecError
from trimexport.memory import release
from trimexport.model.layerwise import LayerwiseModel
from trimexport.model.vocabulary import answer_states, likeliest
from trimexport.planning import Plan
from trimexport.progress import Progress, Silent
from trimexport.prompt.verbalizer import Verbalizer
from trimexport.tables import columns, small_share
from trimexport_runtime.inputs import problem_of
from trimexport_runtime.visible import visible

COUNT = 10  # words that are shown


@dataclass(frozen=True)
class NextToken:
    """A token of the vocabulary, its probability at the answer's place, and the labels for which it
    stands (none for most tokens)."""

    token: str
    token_id: int
    probability: float
    labels: tuple[str, ...]


@dataclass(frozen=True)
class NextWords:
    """A text, the probability of all label tokens together after it, and the tokens of the whole
    vocabulary that are likeliest there, the likeliest first; which of several questions it was."""

    text: str
    label_mass: float
    tokens: tuple[NextToken, ...]
    question: str | None = None


def next_words(
    planned: Plan, texts: Sequence[str], progress: Progress | None = None
) -> tuple[NextWords, ...]:
    """Run the untrimmed model with its whole vocabulary on the prompt and each text.

    Raises:
        SpecError: a fine-tuned classifier, or a text that cannot be tokenised.
    """
    progress = progress or Silent()
    if not planned.verbalizers:
        raise SpecError(
            f"{planned.spec.model} is a fine-tuned classifier, which says nothing but its labels; "
            "drop --text"
        )
    if len(names := planned.prompt.template.required) > 1:
        raise SpecError(
            f"--text is one text, and the prompt takes several: {', '.join(names)}; drop --text, "
            "and `build` shows the labels' share of the probability"
        )
    for text in texts:
        if problem := problem_of(text):
            raise SpecError(f"--text: {problem}")
    release()
    model = LayerwiseModel(planned.checkpoint, planned.mean_behind)
    if not planned.asked:
        return _next_words(model, planned, planned.verbalizers[0], texts, progress)
    found = []
    for question, verbalizer in zip(planned.asked, planned.verbalizers, strict=True):
        own = replace(planned, prompt=question.prompt)
        words = _next_words(model, own, verbalizer, texts, progress)
        found += [replace(each, question=question.name) for each in words]
    return tuple(found)


def _next_words(
    model: LayerwiseModel,
    planned: Plan,
    verbalizer: Verbalizer,
    texts: Sequence[str],
    progress: Progress,
) -> tuple[NextWords, ...]:
    """What the model would say after one question."""
    labels = _label_tokens(verbalizer)
    with progress.bar("the untrimmed model", len(texts)) as tick:
        hidden = answer_states(model, planned, texts, tick)
        best = likeliest(model, hidden, COUNT, list(labels))
    masses, tokens = best.asked.double().sum(1).tolist(), best.token_ids.tolist()
    return tuple(
        NextWords(
            text=text,
            label_mass=mass,
            tokens=tuple(
                NextToken(planned.tokenizer.token(token), token, share, labels.get(token, ()))
                for token, share in zip(row, shares, strict=True)
            ),
        )
        for text, mass, row, shares in zip(
            texts, masses, tokens, best.probabilities.tolist(), strict=True
        )
    )


def _label_tokens(verbalizer: Verbalizer) -> dict[int, tuple[str, ...]]:
    """The labels for which a token stands, by token id."""
    labels_of: dict[int, tuple[str, ...]] = {}
    for label, words in zip(verbalizer.labels, verbalizer.words, strict=True):
        for word in words:
            first = word.token_ids[0]
            labels_of[first] = (*labels_of.get(first, ()), label)
    return labels_of


def next_words_lines(words: NextWords) -> list[str]:
    """The lines for a terminal: the text with its label mass, and one for each token."""
    rows = [
        (
            visible(token.token),
            f"({token.token_id})",
            small_share(token.probability),
            ", ".join(f"label {visible(label)}" for label in token.labels),
        )
        for token in words.tokens
    ]
    mass = small_share(words.label_mass)
    asked = "" if words.question is None else f"{visible(words.question)}, "
    head = f'{asked}"{visible(words.text)}": label mass {mass}; the model would say'
    return [head, *(f"  {line}" for line in columns(rows))]
