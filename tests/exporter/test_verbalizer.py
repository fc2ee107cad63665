"""Labels to tokens: which token follows this prompt, and what is refused."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

import pytest

from models import GEMMA_MINI
from trimexport import SpecError
from trimexport.prompt.template import parse_template
from trimexport.prompt.tokenizer import SourceTokenizer, load_tokenizer
from trimexport.prompt.verbalizer import Verbalizer, make_verbalizer

PLAIN = "Review: {text}\nSentiment:"


@pytest.fixture(scope="module")
def tokenizer() -> SourceTokenizer:
    return load_tokenizer(GEMMA_MINI)


def make(
    tokenizer: SourceTokenizer,
    labels: Sequence[str],
    words: Mapping[str, Sequence[str]] | None = None,
    prompt: str = PLAIN,
) -> Verbalizer:
    return make_verbalizer(labels, words or {}, parse_template(prompt), tokenizer)


def tokens(verbalizer: Verbalizer) -> list[list[str]]:
    return [[word.tokens[0] for word in words] for words in verbalizer.words]


def test_the_token_is_the_one_that_follows_the_prompt(tokenizer: SourceTokenizer) -> None:
    spaced = make(tokenizer, ["positive", "negative"])
    assert tokens(spaced) == [["▁positive"], ["▁negative"]]
    assert tokens(make(tokenizer, ["positive", "negative"], prompt=PLAIN + " ")) == tokens(spaced)
    for prompt in ("{text}", "Review: {text}", "Review:{text}"):
        assert tokens(make(tokenizer, ["positive", "negative"], prompt=prompt)) == tokens(spaced)
    quoted = make(tokenizer, ["World", "Sports"], {"World": ["wonder"]}, prompt='{text} is "')
    assert not quoted.words[0][0].tokens[0].startswith("▁")


def test_several_words(tokenizer: SourceTokenizer) -> None:
    found = make(tokenizer, ["good", "bad"], {"good": ["good", "great"]})
    assert tokens(found) == [["▁good", "▁great"], ["▁bad"]]
    assert found.group_sizes == (2, 1)
    assert len(found.token_ids) == 3


def test_a_first_token_that_tells_the_labels_apart(tokenizer: SourceTokenizer) -> None:
    found = make(tokenizer, ["World", "Sci/Tech"])
    assert tokens(found) == [["▁World"], ["▁Sci"]]
    assert found.notes == (
        'label "Sci/Tech": "Sci/Tech" is 3 tokens ("▁Sci", "/", "Tech"); the first tells all '
        "labels apart and stands for it",
    )


def test_labels_that_begin_alike_are_read_whole(tokenizer: SourceTokenizer) -> None:
    found = make(tokenizer, ["very positive", "very negative", "dull"])
    very, positive, negative = (
        tokenizer.whole.token_to_id(it) for it in ("▁very", "▁positive", "▁negative")
    )
    assert found.sequences[:2] == (((very, positive),), ((very, negative),))
    assert found.trie is not None
    assert found.token_ids == tuple(itertools.chain(*found.trie.rows))
    assert found.group_sizes == (1, 1, 1)
    assert found.notes == (
        "some labels begin with the same token, so they are read whole: 1 token more with each "
        "text, 2 places where labels part",
    )


def test_words_of_fragments_are_read_whole(tokenizer: SourceTokenizer) -> None:
    """Words that the vocabulary only has in pieces are told apart by later ones."""
    found = make(tokenizer, ["日本", "中国"])
    assert found.trie is not None
    assert all(word.tokens[0] == "▁" for words in found.words for word in words)


def test_a_word_that_another_begins_with(tokenizer: SourceTokenizer) -> None:
    """It stands for a whole answer: the model's end token or a line break has to follow."""
    labels, template = ["very", "very bad"], parse_template(PLAIN)
    found = make_verbalizer(labels, {}, template, tokenizer, end_ids=(1,))
    very, line_break = tokenizer.whole.token_to_id("▁very"), tokenizer.whole.token_to_id("\n")
    assert found.sequences[0] == ((very, 1), (very, line_break))
    assert found.group_sizes == (2, 1)
    alone = make_verbalizer(labels, {}, template, tokenizer)
    assert alone.sequences[0] == ((very, line_break),)


@pytest.mark.parametrize(
    ("labels", "words", "message"),
    [
        (["positive"], {}, "there is 1 label.*two at least"),
        ([], {}, "there is no label"),
        (["good", "good"], {}, '"good" is given twice'),
        (["good", " "], {}, "a label is empty"),
        (["good", "bad"], {"fine": ["fine"]}, 'names "fine", which is no label'),
        (["good", "bad"], {"good": [""]}, 'label "good" has an empty word'),
        (["good", "日本"], {}, 'the word "日本".*not in the model'),
        (["good", "bad"], {"good": ["great", "great"]}, "are the same tokens .*keep one"),
        (
            ["good", "bad"],
            {"good": ["great"], "bad": ["great"]},
            'the words "great" of label "bad" and "great" of "good" are the same tokens'
            '.*--verbalize "bad=word"',
        ),
    ],
)
def test_errors(
    tokenizer: SourceTokenizer, labels: list[str], words: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        make(tokenizer, labels, words)


def test_a_word_that_fuses_with_the_prompt(tokenizer: SourceTokenizer) -> None:
    """Two line breaks are one token, so the word's own first token never follows this prompt."""
    with pytest.raises(SpecError, match="fuses with the end of the prompt"):
        make(tokenizer, ["good", "bad"], {"good": ["\ngood"]}, prompt="{text}\nAnswer:\n")


@pytest.mark.parametrize(
    ("labels", "score", "message"),
    [
        (["good", "bad", "fair"], "log-odds", "the score log-odds is made of 2 labels, not of 3"),
        (["good"], "log-odds", "name the one that it is high for, then the other: --labels yes,no"),
        (["good", "bad"], "logit", "the score logit is made of 1 label, not of 2"),
        (["Sci/Tech"], "logit", 'is 3 tokens ("▁Sci", "/", "Tech"), and the score logit is one'),
    ],
)
def test_labels_that_make_no_such_score(
    tokenizer: SourceTokenizer, labels: list[str], score: str, message: str
) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        make_verbalizer(labels, {}, parse_template(PLAIN), tokenizer, score=score)


def test_one_label_with_several_words(tokenizer: SourceTokenizer) -> None:
    words = {"good": ("good", "great")}
    found = make_verbalizer(["good"], words, parse_template(PLAIN), tokenizer, score="logit")
    assert (found.group_sizes, found.sequences) == ((2,), ())
