"""The vocabulary tokens that stand for the labels after a prompt.

A word's tokens depend on what precedes it (`positive` or `▁positive`), so they are found by
tokenising the prompt's end together with the word, not by looking up a spelling.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trimexport.errors import SpecError
from trimexport.spec import LOG_ODDS, LOGIT, SOFTMAX

from .label_trie import Trie, first_tokens_differ, make_trie
from .template import PromptTemplate

if TYPE_CHECKING:  # wrong labels are refused without loading transformers
    from .tokenizer import SourceTokenizer

_EXACTLY = {LOG_ODDS: 2, LOGIT: 1}
_OF_SCORE = {
    LOG_ODDS: "name the one that it is high for, then the other: --labels yes,no",
    LOGIT: "name that one alone, with all its words in --verbalize: --labels yes",
}
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class LabelWord:
    """A word and its tokens after the prompt."""

    word: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class Verbalizer:
    """The words that stand for each label, in the order of the logits.

    If the words' first tokens are all different, these alone are read. Otherwise `sequences` holds
    each label's words as whole token sequences, none of which begins with another: a word with
    which another begins (`go`, with `going`) is followed by each token that may end an answer.
    """

    labels: tuple[str, ...]
    words: tuple[tuple[LabelWord, ...], ...]
    sequences: tuple[tuple[tuple[int, ...], ...], ...] = ()

    @functools.cached_property
    def trie(self) -> Trie | None:
        """The trie of the sequences, or None if first tokens alone are read."""
        return make_trie(list(itertools.chain(*self.sequences))) if self.sequences else None

    @property
    def scored(self) -> tuple[tuple[int, ...], ...]:
        """What is read of each word, label by label: its first token, or whole sequences."""
        if self.sequences:
            return tuple(itertools.chain(*self.sequences))
        return tuple(word.token_ids[:1] for words in self.words for word in words)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The rows of the output layer that are kept: label by label and word by word, or branch
        by branch of the trie."""
        if (trie := self.trie) is not None:
            return tuple(itertools.chain(*trie.rows))
        return tuple(word.token_ids[0] for words in self.words for word in words)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """How many words or, where there are any, sequences belong to each label."""
        return tuple(map(len, self.sequences or self.words))

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user: on words of several tokens of which the first is read, or on the
        cost of reading whole words."""
        if (trie := self.trie) is not None:
            parted = sum(len(rows) > 1 for rows in trie.rows)
            return (
                f"some labels begin with the same token, so they are read whole: "
                f"{_count(len(trie.token_ids), 'token')} more with each text, "
                f"{_count(parted, 'place')} where labels part",
            )
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
    end_ids: Sequence[int] = (),
    score: str = SOFTMAX,
) -> Verbalizer:
    """Find the tokens of every label.

    Args:
        words: each label's words; a label without any is its own word.
        end_ids: the tokens with which the model ends an answer.
        score: the kind of score that is made of the labels.

    Raises:
        SpecError: as `check_labels`; a word that the vocabulary does not hold or that is given
            twice, one with which another begins although no token could end it, or one of several
            tokens where the score is a single label's logit.
    """
    check_labels(labels, score)
    for label in words:
        if label not in labels:
            raise SpecError(
                f'--verbalize names "{label}", which is no label; the labels are {_quoted(labels)}'
            )
    tokenised = tuple(
        tuple(tokenise_word(label, word, template, tokenizer) for word in words.get(label, [label]))
        for label in labels
    )
    verbalizer = Verbalizer(labels=tuple(labels), words=tokenised)
    _refuse_same(verbalizer)
    _refuse_fragments(verbalizer)
    if score == LOGIT:
        _refuse_several_tokens(verbalizer)
    if first_tokens_differ([word.token_ids for own in tokenised for word in own]):
        return verbalizer
    return replace(verbalizer, sequences=_sequences(verbalizer, template, tokenizer, end_ids))


def check_labels(labels: Sequence[str], score: str = SOFTMAX) -> None:
    """Raise SpecError unless the labels are distinct, none of them empty, and as many as the kind
    of score needs: two or more, two for log-odds, one for a logit."""
    if any(not label.strip() for label in labels):
        raise SpecError(f"a label is empty in {_quoted(labels)}; give each label a name")
    repeated = sorted({label for label in labels if list(labels).count(label) > 1})
    if repeated:
        raise SpecError(f"label {_quoted(repeated)} is given twice; give each label once")
    if score in _EXACTLY and len(labels) != _EXACTLY[score]:
        raise SpecError(
            f"the score {score} is made of {_count(_EXACTLY[score], 'label')}, not of "
            f"{len(labels)} ({_quoted(labels)}); {_OF_SCORE[score]}"
        )
    if len(labels) < 2 and score not in _EXACTLY:
        raise SpecError(
            f"there is {len(labels) or 'no'} label ({_quoted(labels)}), a classifier needs two at "
            "least: --labels positive,negative"
        )


def tokenise_word(
    label: str,
    word: str,
    template: PromptTemplate,
    tokenizer: SourceTokenizer,
    option: str = "--verbalize",
) -> LabelWord:
    """The tokens of `word` after the prompt's suffix.

    Args:
        option: the option with which a user gives words, for messages.

    Raises:
        SpecError: the word is empty, the vocabulary does not hold it, or it fuses with the prompt.
    """
    if not word.strip():
        raise SpecError(f'label "{label}" has an empty word; drop the comma or give the word')
    before = tokenizer.encode_inside(_prompt_end(template))
    joined = tokenizer.encode_inside(_with_lead(template, word))
    ids = joined[len(before) :]
    if not ids or joined[: len(before)] != before:
        raise SpecError(
            f'the word "{word}" of label "{label}" fuses with the end of the prompt '
            f"({_quoted([tokenizer.token(i) for i in joined[-4:]])}); end the prompt in a colon or "
            f'a line break, or write the word with its space: {option} "label= word"'
        )
    tokens = tuple(tokenizer.token(token_id) for token_id in ids)
    if tokenizer.definition["model"].get("unk_token") in tokens:
        raise _not_in_vocabulary(label, word, tokens, option)
    return LabelWord(word=word, token_ids=ids, tokens=tokens)


def _prompt_end(template: PromptTemplate) -> str:
    """The end of the prompt, without the spaces before the label: the suffix, or any text if there
    is none."""
    return template.suffix.rstrip(" ") or "a text"


def _with_lead(template: PromptTemplate, word: str) -> str:
    """The end of the prompt with a word behind it, and the space between them."""
    return _prompt_end(template) + ("" if word.startswith(" ") else template.label_lead) + word


def _refuse_same(verbalizer: Verbalizer) -> None:
    """Raise SpecError if two words are the same tokens."""
    owner: dict[tuple[int, ...], tuple[str, LabelWord]] = {}
    for label, words in zip(verbalizer.labels, verbalizer.words, strict=True):
        for word in words:
            other, same = owner.setdefault(word.token_ids, (label, word))
            if same is word:
                continue
            if other == label:
                raise SpecError(
                    f'label "{label}": the words "{same.word}" and "{word.word}" are the same '
                    f"tokens ({_quoted(word.tokens)}); keep one of them"
                )
            raise SpecError(
                f'the words "{word.word}" of label "{label}" and "{same.word}" of "{other}" are '
                f"the same tokens ({_quoted(word.tokens)}); give each label its own word with "
                f'--verbalize "{label}=word"'
            )


def _refuse_fragments(verbalizer: Verbalizer) -> None:
    """Raise SpecError if the only token that is read of a word is a bare space or a byte, with
    which many words begin. If another label word begins with it, whole words are read."""
    firsts = Counter(word.token_ids[0] for words in verbalizer.words for word in words)
    for label, words in zip(verbalizer.labels, verbalizer.words, strict=True):
        for word in words:
            if firsts[word.token_ids[0]] == 1:
                refuse_fragment(label, word)


def _refuse_several_tokens(verbalizer: Verbalizer) -> None:
    """Raise SpecError if a word has several tokens: what its first one's logit says is no score of
    the word, and the log-probability of all of them is no logit."""
    for label, words in zip(verbalizer.labels, verbalizer.words, strict=True):
        for word in words:
            if len(word.tokens) > 1:
                raise SpecError(
                    f'the word "{word.word}" of label "{label}" is {len(word.tokens)} tokens '
                    f"({_quoted(word.tokens)}), and the score {LOGIT} is one token's; give the "
                    f'label a word of one token with --verbalize "{label}=word"'
                )


def refuse_fragment(label: str, word: LabelWord, option: str = "--verbalize") -> None:
    """Raise SpecError for a word whose first token is a bare space or a byte."""
    first = word.tokens[0]
    if _BYTE.fullmatch(first) or first.strip("▁Ġ") == "":
        raise _not_in_vocabulary(label, word.word, word.tokens, option)


def _not_in_vocabulary(label: str, word: str, tokens: Sequence[str], option: str) -> SpecError:
    return SpecError(
        f'the word "{word}" of label "{label}" is not in the model\'s vocabulary (it begins '
        f"with {_quoted(tokens[:3])}); give the label a word that is: "
        f'{option} "{label}=word"'
    )


def _sequences(
    verbalizer: Verbalizer,
    template: PromptTemplate,
    tokenizer: SourceTokenizer,
    end_ids: Sequence[int],
) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The whole words of each label as token sequences, none of which begins with another."""
    all_ids = [word.token_ids for words in verbalizer.words for word in words]

    def complete(label: str, word: LabelWord) -> list[tuple[int, ...]]:
        """The word's tokens or, if another word begins with them, the same with each token that
        may end an answer behind them."""
        size = len(word.token_ids)
        longer = [ids for ids in all_ids if len(ids) > size and ids[:size] == word.token_ids]
        if not longer:
            return [word.token_ids]
        following = {ids[size] for ids in longer}
        ends = [end for end in _ends(word, template, tokenizer, end_ids) if end not in following]
        if not ends:
            raise SpecError(
                f'the word "{word.word}" of label "{label}" is how another word begins, and '
                "nothing tells where it ends: the model has no end token; give the label "
                f'another word with --verbalize "{label}=word"'
            )
        return [(*word.token_ids, end) for end in ends]

    return tuple(
        tuple(sequence for word in words for sequence in complete(label, word))
        for label, words in zip(verbalizer.labels, verbalizer.words, strict=True)
    )


def _ends(
    word: LabelWord, template: PromptTemplate, tokenizer: SourceTokenizer, end_ids: Sequence[int]
) -> tuple[int, ...]:
    """The tokens that may follow a word that is the whole answer: the model's end tokens, and a
    line break if it is one token there."""
    answer = _with_lead(template, word.word)
    plain, broken = tokenizer.encode_inside(answer), tokenizer.encode_inside(answer + "\n")
    alone = len(broken) == len(plain) + 1 and broken[:-1] == plain
    return (*dict.fromkeys((*end_ids, *(broken[-1:] if alone else ()))),)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _quoted(items: Sequence[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)
