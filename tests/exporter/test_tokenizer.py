"""The bundle's tokenizer against the source's: prefix + text + suffix, on texts made to hurt."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from long_texts import CountingTokenizer, assert_kept, hard_texts
from models import GEMMA_MINI, needs_data, read_jsonl, tokenizer_definition
from trimexport import UnsupportedError
from trimexport.prompt.prompt_ids import tokenise_prompt
from trimexport.prompt.template import join, parse_template
from trimexport.prompt.tokenizer import SourceTokenizer, load_tokenizer, text_tokenizer
from trimexport.prompt.tokenizer_json import without_start

TEMPLATE = parse_template("Review: {text}\nSentiment:")
FRAGMENTS = [
    "\n", "\n\n", "\n" * 40, "\t", " ", "  ", " " * 40, "▁", "▁▁", " ▁", "<b>", "</b>", "<table>",
    "<b", "b>", "😀", "👍🏽", "é", "e\u0301", "\u200b", "日本語", "word", "good", "-", ".", "...",
    "'s", "n't", "1234", "<0x41>", "\x00", "\r\n", "<unused3>", "[@BOS@]", "ﬁ", "\u00a0", "<2mass>",
]  # fmt: skip
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
texts = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=12).map("".join),
    st.text(min_size=1, max_size=30),
)


@pytest.fixture(scope="module")
def mini() -> SourceTokenizer:
    return load_tokenizer(GEMMA_MINI)


_MADE: dict[tuple[int, str], Tokenizer] = {}


def bundle_tokenizer(source: SourceTokenizer, lead: str) -> Tokenizer:
    """The bundle's tokenizer, made once for each source and lead."""
    key = (id(source), lead)
    if key not in _MADE:
        _MADE[key] = Tokenizer.from_str(json.dumps(text_tokenizer(source, lead)))
    return _MADE[key]


def text_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


@functools.cache
def exceptions(lead: str) -> frozenset[str]:
    """Texts that do not get the lead: those that are one kept added token."""
    added = text_tokenizer(load_tokenizer(GEMMA_MINI), lead)["added_tokens"]
    return frozenset(token["content"] for token in added) if lead else frozenset()


def is_inexact(text: str, lead: str) -> bool:
    """The documented exceptions, and control tokens, which differ on purpose."""
    control = any(token in text for token in CONTROL)
    return control or text in exceptions(lead) or (bool(lead) and "▁▁" in text)


@given(text=texts)
@example(text="good\nbad")
@example(text=" lead")
@example(text="▁lead")
@example(text="<b>bold</b> from the start")
@settings(max_examples=400, deadline=None)
def test_segments_are_the_joined_string(mini: SourceTokenizer, text: str) -> None:
    """Where the prompt's ends are clean, segment ids are the ids of the joined string. A text that
    begins or ends in white space may fuse with the prompt, which is the tokenisation gap."""
    assume(not is_inexact(text, " "))
    assume(text[-1] not in "\n▁ " and text[0] not in " ▁")
    prompt = tokenise_prompt(TEMPLATE, mini)
    own = text_ids(bundle_tokenizer(mini, prompt.text_lead), text)
    joined = mini.encode_start(join(TEMPLATE, [text]))
    assert (*prompt.prefix_ids, *own, *prompt.suffix_ids) == joined


@pytest.mark.parametrize("lead", ["", " ", "  "])
@given(text=texts)
@settings(max_examples=200, deadline=None)
def test_a_text_is_the_source_with_the_lead_before_it(
    mini: SourceTokenizer, lead: str, text: str
) -> None:
    """Whatever the text: the ids are those that the source gives for lead + text."""
    assume(not is_inexact(text, lead))
    assert text_ids(bundle_tokenizer(mini, lead), text) == list(mini.encode_inside(lead + text))


@pytest.mark.parametrize("token", CONTROL)
@given(before=texts, after=texts)
@settings(max_examples=30, deadline=None)
def test_control_tokens_are_only_characters(
    mini: SourceTokenizer, token: str, before: str, after: str
) -> None:
    ids = text_ids(bundle_tokenizer(mini, " "), before + token + after)
    assert mini.whole.token_to_id(token) not in ids


def test_an_empty_text_has_no_tokens(mini: SourceTokenizer) -> None:
    assert text_ids(bundle_tokenizer(mini, " "), "") == []


def test_a_text_that_is_one_added_token_gets_no_lead(mini: SourceTokenizer) -> None:
    """The one inexact case, which the documentation names."""
    tokenizer = bundle_tokenizer(mini, " ")
    assert tokenizer.encode("<b>", add_special_tokens=False).tokens == ["<b>"]
    assert tokenizer.encode("<b>x", add_special_tokens=False).tokens == ["▁", "<b>", "x"]


def _saved(definition: dict[str, Any], directory: Path, **special: str) -> SourceTokenizer:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(definition)), **special
    )
    fast.save_pretrained(directory)
    return load_tokenizer(directory)


def test_a_dummy_prefix_belongs_to_the_start_of_the_string(tmp_path: Path) -> None:
    """Llama 2's tokenizer writes a space before every string; a text inside one gets none."""
    definition = tokenizer_definition()
    definition["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Prepend", "prepend": "▁"}, definition["normalizer"]],
    }
    definition["added_tokens"] = [t for t in definition["added_tokens"] if t["special"]]
    source = _saved(definition, tmp_path, bos_token="<bos>", unk_token="<unk>")
    assert source.lead("", "") == (" ", True)
    for template in ("Review: {text}\nSentiment:", "{text}\nSentiment:"):
        parsed = parse_template(template)
        prompt = tokenise_prompt(parsed, source)
        tokenizer = bundle_tokenizer(source, prompt.text_lead)
        for text in ("good", " good", "a\nb", "日本"):
            ids = (*prompt.prefix_ids, *text_ids(tokenizer, text), *prompt.suffix_ids)
            assert ids == source.encode_start(join(parsed, [text])), (template, text)


def test_a_byte_level_tokenizer(tmp_path: Path) -> None:
    """GPT-2's kind: no normaliser, a pre-tokenizer that splits words with their space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["Review: a good film\nSentiment: positive"] * 20, trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    source = _saved(json.loads(tokenizer.to_str()), tmp_path, eos_token="<|end|>")
    prompt = tokenise_prompt(TEMPLATE, source)
    derived = bundle_tokenizer(source, prompt.text_lead)
    for text in ("good", "a good film", "it 's\nfine", "日本 😀", " two", "<|end|>x"):
        ids = (*prompt.prefix_ids, *text_ids(derived, text), *prompt.suffix_ids)
        if "<|end|>" in text:
            assert source.whole.token_to_id("<|end|>") not in ids
        else:
            assert ids == source.encode_start(join(TEMPLATE, [text]))


@pytest.mark.parametrize(("content", "normalizer"), [("aab", "NFC"), ("<a>", "Prepend")])
def test_added_tokens_that_patterns_cannot_find_are_refused(
    tmp_path: Path, content: str, normalizer: str
) -> None:
    """Two that claim the same characters, and one that the source matches behind its `Prepend`."""
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "ba": 1, "aab": 2, "<a>": 3}, merges=[]))
    tokenizer.normalizer = {"NFC": normalizers.NFC(), "Prepend": normalizers.Prepend("▁")}[
        normalizer
    ]
    tokenizer.add_tokens([AddedToken("ba", normalized=False)])
    tokenizer.add_tokens([AddedToken(content, normalized=normalizer == "Prepend")])
    source = _saved(json.loads(tokenizer.to_str()), tmp_path, pad_token="a")
    with pytest.raises(UnsupportedError, match=r"white space before a text cannot be compiled"):
        text_tokenizer(source, " ")


@pytest.fixture(scope="module")
def real_gemma(tmp_path_factory: pytest.TempPathFactory) -> SourceTokenizer:
    directory = tmp_path_factory.mktemp("gemma")
    path = needs_data("gemma_tokenizer", "tokenizer.json")
    (directory / "tokenizer.json").write_bytes(path.read_bytes())
    config = (GEMMA_MINI / "tokenizer_config.json").read_text(encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(config, encoding="utf-8")
    return load_tokenizer(directory)


def test_the_real_gemma_vocabulary(real_gemma: SourceTokenizer) -> None:
    """256,000 pieces: known ids, and segments against the joined string on real texts."""
    source = real_gemma
    assert source.encode_inside(" positive") == (6222,)
    assert source.encode_inside("positive") == (30212,)
    prompt = tokenise_prompt(TEMPLATE, source)
    tokenizer = bundle_tokenizer(source, prompt.text_lead)
    for row in read_jsonl(needs_data("sst2", "test.jsonl")):
        ids = (*prompt.prefix_ids, *text_ids(tokenizer, row["text"]), *prompt.suffix_ids)
        assert ids == source.encode_start(join(TEMPLATE, [row["text"]]))
    for fragment in FRAGMENTS:
        if "▁▁" not in fragment:
            found = text_ids(tokenizer, "x" + fragment + "y")
            assert found == list(source.encode_inside(" x" + fragment + "y"))


def test_the_merges_that_the_real_gemma_vocabulary_needs(real_gemma: SourceTokenizer) -> None:
    """Half of them are never made; no id of tokens side by side changes without them."""
    inside = without_start(real_gemma.definition)
    every = len(inside["model"]["merges"])
    inside["model"]["merges"] = real_gemma.merges
    assert len(inside["model"]["merges"]) < 0.6 * every
    fewer, tokens = Tokenizer.from_str(json.dumps(inside)), sorted(inside["model"]["vocab"])
    chance = random.Random(1)
    texts = [" ".join(tokens[at : at + 500]) for at in range(0, len(tokens), 500)]
    texts += ["".join(chance.sample(tokens, 6)) for _ in range(4_000)]
    texts += ["".join(chance.choices("▁abeinorst\n ", k=40)) for _ in range(1_000)]
    for text in texts:
        assert text_ids(fewer, text) == list(real_gemma.encode_inside(text))


@given(asked=hard_texts(FRAGMENTS, 31))
@settings(max_examples=25, deadline=None)
def test_what_is_kept_of_a_long_text(mini: SourceTokenizer, asked: tuple[str, int]) -> None:
    assert_kept(CountingTokenizer(bundle_tokenizer(mini, " ")), *asked)


def test_what_is_kept_of_a_long_text_by_the_real_gemma_tokenizer(
    real_gemma: SourceTokenizer,
) -> None:
    kept = CountingTokenizer(bundle_tokenizer(real_gemma, " "))
    rows = read_jsonl(needs_data("sst2", "test.jsonl"))
    whole = " ".join(row["text"] for row in rows)
    for text in (whole, whole.replace(" ", ""), "日本語が好き。" * 8_000, "ab" * 20_001):
        assert_kept(kept, text, 40 if text is whole else 5)


def test_the_ids_of_the_real_gemma_tokenizer(real_gemma: SourceTokenizer) -> None:
    """Inputs made to hurt, with the ids that Google's own tokenizer gives."""
    source = real_gemma
    for name in ("small", "mixed"):
        lines, ids = expected_ids(name, "input"), expected_ids(name, "tokens")
        for line, row in zip(lines.split("\n")[:-1], ids.split("\n")[:-1], strict=True):
            if name == "small":  # where these two are spelled out
                line = line.replace("\\n", "\n").replace("\\s", " ")
            assert source.encode_inside(line) == tuple(int(i) for i in row.split(",") if i)
    whole = tuple(map(int, expected_ids("utf8", "tokens").split(",")))
    assert source.encode_inside(expected_ids("utf8", "input")) == whole


def expected_ids(name: str, what: str) -> str:
    path = needs_data("gemma_tokenizer", "expected", f"{name}_{what}.txt")
    with path.open(encoding="utf-8", newline="") as stream:
        return stream.read()


def test_clients_of_transformers_see_the_same_ids(sentiment: Path, mini: SourceTokenizer) -> None:
    """AutoTokenizer on the bundle, as a client of an ordinary classifier would use it."""
    client = AutoTokenizer.from_pretrained(sentiment)
    tokenizer = bundle_tokenizer(mini, " ")
    assert client.padding_side == "right"
    assert client.model_max_length == 504
    assert client.pad_token_id == 0
    for text in ("good\nbad", " lead", "<b>x</b>", "<bos>a<end_of_turn>", "<pad>x", "日本 😀"):
        assert client(text)["input_ids"] == text_ids(tokenizer, text)
    assert mini.whole.token_to_id("<end_of_turn>") not in client("a<end_of_turn>")["input_ids"]
    long = client("good " * 900, truncation=True)["input_ids"]
    assert len(long) == 504
