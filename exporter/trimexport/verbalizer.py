"""From labels to the vocabulary tokens that stand for them after this prompt.

Which token that is depends on what precedes it (`positive` or `▁positive`), so it is found by
tokenising the prompt's end with the word behind it, never by looking a spelling up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import SpecError
from .prompt import PromptTemplate

if TYPE_CHECKING:  # wrong labels are refused without loading transformers
    from .tokenizer import SourceTokenizer

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class LabelWord:
    """A word and its tokens after the prompt; the first one stands for it."""

    word: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class Verbalizer:
    """Per label, in the order of the logits, the words that stand for it."""

    labels: tuple[str, ...]
    words: tuple[tuple[LabelWord, ...], ...]

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The rows of the output layer that are kept: label by label, word by word."""
        return tuple(word.token_ids[0] for words in self.words for word in words)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """How many of `token_ids` belong to each label."""
        return tuple(len(words) for words in self.words)

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for each word of several tokens, of which only the first is read."""
        return tuple(
            f'label "{label}": "{word.word}" is {len(word.tokens)} tokens '
            f"({_quoted(word.tokens)}); the first tells all labels apart and stands for it"
            for label, words in zip(self.labels, self.words, strict=True)
            for word in words
            if len(word.tokens) > 1
        )


def make_verbalizer(
    labels: Sequence[str],
    words: Mapping[str, Sequence[str]],
    template: PromptTemplate,
    tokenizer: SourceTokenizer,
) -> Verbalizer:
    """Find the tokens of every label; a label without an entry in `words` stands for itself.

    Raises:
        SpecError: fewer than two labels, an empty or repeated one, a word that the vocabulary
            does not hold, or two labels that cannot be told apart by their first token.
    """
    check_labels(labels)
    for label in words:
        if label not in labels:
            raise SpecError(
                f'--verbalize names "{label}", which is no label; the labels are {_quoted(labels)}'
            )
    found = tuple(
        tuple(tokenise_word(label, word, template, tokenizer) for word in words.get(label, [label]))
        for label in labels
    )
    verbalizer = Verbalizer(labels=tuple(labels), words=found)
    _refuse_collisions(verbalizer)
    return verbalizer


def check_labels(labels: Sequence[str]) -> None:
    """Raise SpecError unless there are two distinct labels or more, none of them empty."""
    if any(not label.strip() for label in labels):
        raise SpecError(f"a label is empty in {_quoted(labels)}; give each label a name")
    repeated = sorted({label for label in labels if list(labels).count(label) > 1})
    if repeated:
        raise SpecError(f"label {_quoted(repeated)} is given twice; give each label once")
    if len(labels) < 2:
        raise SpecError(
            f"there is {len(labels) or 'no'} label ({_quoted(labels)}), a classifier needs two at "
            "least: --labels positive,negative"
        )


def tokenise_word(
    label: str, word: str, template: PromptTemplate, tokenizer: SourceTokenizer
) -> LabelWord:
    """The tokens of `word` after the prompt's suffix.

    Raises:
        SpecError: an empty word, one that the vocabulary does not hold, or that fuses with the
            prompt.
    """
    if not word.strip():
        raise SpecError(f'label "{label}" has an empty word; drop the comma or give the word')
    ending = template.suffix.rstrip(" ") or "a text"
    lead = "" if word.startswith(" ") else template.label_lead
    before = tokenizer.encode_inside(ending)
    joined = tokenizer.encode_inside(ending + lead + word)
    ids = joined[len(before) :]
    if not ids or joined[: len(before)] != before:
        raise SpecError(
            f'the word "{word}" of label "{label}" fuses with the end of the prompt '
            f"({_quoted([tokenizer.token(i) for i in joined[-4:]])}); end the prompt in a colon or "
            'a line break, or write the word with its space: --verbalize "label= word"'
        )
    tokens = tuple(tokenizer.token(token_id) for token_id in ids)
    unknown = tokenizer.definition["model"].get("unk_token")
    if tokens[0] == unknown or _BYTE.fullmatch(tokens[0]) or tokens[0].strip("▁Ġ") == "":
        raise SpecError(
            f'the word "{word}" of label "{label}" is not in the model\'s vocabulary (it begins '
            f"with {_quoted(tokens[:3])}); give the label a word that is: "
            f'--verbalize "{label}=word"'
        )
    return LabelWord(word=word, token_ids=ids, tokens=tokens)


def _refuse_collisions(verbalizer: Verbalizer) -> None:
    """Raise SpecError when two words begin with the same token."""
    owner: dict[int, tuple[str, LabelWord]] = {}
    for label, words in zip(verbalizer.labels, verbalizer.words, strict=True):
        for word in words:
            first = word.token_ids[0]
            if first not in owner:
                owner[first] = (label, word)
                continue
            other, other_word = owner[first]
            if other == label:
                raise SpecError(
                    f'label "{label}": the words "{other_word.word}" and "{word.word}" begin with '
                    f"the same token ({_quoted(word.tokens[:1])}); keep one of them"
                )
            raise SpecError(
                f'label "{label}" is {len(word.tokens)} token{"s" * (len(word.tokens) > 1)} '
                f'({_quoted(word.tokens)}) and shares its first with "{other}" '
                f"({_quoted(other_word.tokens)}); give each label its own word with "
                f'--verbalize "{label}=word"'
            )


def _quoted(items: Sequence[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)
