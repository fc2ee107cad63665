"""Every family's way of splitting: segments against the source on the joined string."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from long_texts import CountingTokenizer, assert_kept, hard_texts
from real_tokenizers import byte_pairs, needs_vocabulary
from trained_tokenizers import FAMILIES, LLAMA_3, QWEN, added, byte_level, pieces, split_on_bytes
from trimexport.parity.boundary import gap_share, with_clean_suffix
from trimexport.prompt.prompt_ids import tokenise_prompt
from trimexport.prompt.template import PromptTemplate, join, parse_template
from trimexport.prompt.tokenizer import SourceTokenizer, load_tokenizer, text_tokenizer

FRAGMENTS = [
    "\n", "\n\n", "\t", " ", "  ", " " * 9, "▁", " ▁", "<think>", "</think>", "<tool_call>",
    "<fim>", "<tool_call", "call>", "😀", "é", "e\u0301", "\u0338", "\u200b", "日本語", "word",
    "good", "-", ".", "...", "'s", "n't", "1234", "\x00", "\r\n", "ﬁ", "\u00a0", "</s>", "[INST]",
    "\u212a", "K",
]  # fmt: skip
CONTROL = ("<|begin|>", "<|end|>", "<|user|>", "<s>", "</s>", "[INST]", "[/INST]", "<unk>")
LEADS = ("", " ", "  ")
texts = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=10).map("".join),
    st.text(min_size=1, max_size=20),
)

clean = st.builds("{}{}z".format, st.sampled_from(["a", "<think>", "<tool_call>"]), texts)


MAKERS = {
    **FAMILIES,
    "deepseek": lambda: byte_level(LLAMA_3, None, added("<think>", "</think>"), bos=True),
    "neox": lambda: byte_level(
        None, normalizers.NFC(), [AddedToken("  "), AddedToken("   ")], bos=False
    ),
    "strips": lambda: byte_level(
        QWEN,
        normalizers.NFC(),
        [
            *added("<think>", rstrip=True),
            *added("<tool_call>", lstrip=True),
            *added("word", single_word=True),
        ],
        bos=False,
    ),
    "lowercase": lambda: byte_level(
        QWEN,
        normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
        added("<THINK>", "<think>", "<tool_call>"),
        bos=False,
    ),
    "llama 2": lambda: pieces(None, []),
    "llama 2, metaspace": lambda: pieces("first", []),
    "metaspace on every piece": lambda: pieces("always", []),
    "prepend and added tokens": lambda: pieces(
        None, [*added("<think>", "<fim>"), *added("<tool_call>", rstrip=True)]
    ),
    "metaspace and added tokens": lambda: pieces(
        "always", [*added("<think>", "<fim>"), *added("<tool_call>", rstrip=True, lstrip=True)]
    ),
    "first and added tokens": lambda: pieces("first", added("<think>", "<fim>")),
}
WITH_DUMMY = [name for name in MAKERS if "llama 2" in name or "metaspace" in name]
WITH_DUMMY += ["prepend and added tokens", "first and added tokens"]
PLAIN = [name for name in MAKERS if name not in WITH_DUMMY]
PROMPTS = [
    "Review: {text}\nSentiment:", "Review:{text}\nSentiment:", "{text}\nSentiment:", " {text}\nIs:",
    "Review:  {text}\nSentiment:",
]  # fmt: skip
TURNS = [
    "[INST] {text}\n[/INST]", "[INST]{text}\n[/INST] so", "<|user|>\n{text}\n<|end|>\n<|user|>",
    "<|user|> {text}\nx<|end|>\n", "a[INST] [INST]{text}\n",
]  # fmt: skip


@functools.cache
def source_of(family: str) -> SourceTokenizer:
    """The family's tokenizer as a checkpoint has it."""
    unk = {} if MAKERS[family]().token_to_id("<unk>") is None else {"unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=MAKERS[family](), pad_token="<|end|>", eos_token="<|end|>", **unk
    )
    with tempfile.TemporaryDirectory() as directory:
        fast.save_pretrained(directory)
        return load_tokenizer(Path(directory))


@functools.cache
def derived(family: str, lead: str, is_dummy: bool) -> Tokenizer:
    definition = text_tokenizer(source_of(family), lead, is_dummy=is_dummy)
    return Tokenizer.from_str(json.dumps(definition))


def ids_of(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False).ids)


def has_control(text: str) -> bool:
    return any(token in text for token in CONTROL)


def kept(family: str) -> set[str]:
    tokens = source_of(family).definition["added_tokens"]
    return {token["content"] for token in tokens if not token["special"]}


def assert_segments_are_joined(family: str, template: PromptTemplate, text: str) -> None:
    source = source_of(family)
    prompt = tokenise_prompt(template, source)
    own = ids_of(derived(family, prompt.text_lead, prompt.lead_is_dummy), text)
    joined = source.encode_start(join(template, [text]))
    assert (*prompt.prefix_ids, *own, *prompt.suffix_ids) == joined


@pytest.mark.parametrize("family", PLAIN)
@pytest.mark.parametrize("lead", LEADS)
@given(text=texts)
@example(text="<tool_call>\u0338 <think> \n word")
@example(text="a<think></think> b")
@settings(max_examples=30, deadline=None)
def test_a_text_is_the_source_with_the_lead_before_it(family: str, lead: str, text: str) -> None:
    assume(not has_control(text) and (text not in kept(family) or not lead))
    own = ids_of(derived(family, lead, False), text)
    assert own == ids_of(source_of(family).whole, lead + text)


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("template", PROMPTS)
@given(text=st.one_of(clean, clean.map(lambda text: " " + text)))
@example(text="<think>a<fim> b<tool_call>  c")
@example(text=" one space")
@settings(max_examples=20, deadline=None)
def test_segments_are_the_joined_string(family: str, template: str, text: str) -> None:
    """Texts whose ends are clean; white space at the start counts where the text opens all."""
    parsed = parse_template(template)
    if parsed.prefix.strip():
        text = text.lstrip() if parsed.prefix.endswith(" ") else "a" + text
    assume(not has_control(text))
    assert_segments_are_joined(family, parsed, text)


@pytest.mark.parametrize("family", WITH_DUMMY)
@pytest.mark.parametrize("template", TURNS)
@given(text=clean)
@example(text="good")
@example(text="<think>a<fim> b<tool_call>  c")
@settings(max_examples=20, deadline=None)
def test_a_dummy_prefix_behind_a_control_token(family: str, template: str, text: str) -> None:
    """The space that such a tokenizer writes before every piece, around the text and within it."""
    parsed = parse_template(template)
    assume(not has_control(text) and text not in kept(family))
    assert_segments_are_joined(family, parsed, text)


@pytest.mark.parametrize("family", MAKERS)
@given(before=texts, after=texts, data=st.data())
@settings(max_examples=15, deadline=None)
def test_control_tokens_are_only_characters(
    family: str, before: str, after: str, data: st.DataObject
) -> None:
    tokens = source_of(family).definition["added_tokens"]
    special = [token["content"] for token in tokens if token["special"]]
    control = data.draw(st.sampled_from([one for one in special if one != "<unk>"]))
    found = source_of(family).whole.token_to_id(control)
    for lead in LEADS:
        assert found not in ids_of(derived(family, lead, False), before + control + after)


@pytest.mark.parametrize("family", MAKERS)
def test_an_empty_text_stays_empty(family: str) -> None:
    for lead in LEADS:
        assert ids_of(derived(family, lead, False), "") == ()


@functools.cache
def counted(family: str, lead: str) -> CountingTokenizer:
    return CountingTokenizer(derived(family, lead, bool(lead) and family in WITH_DUMMY))


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("lead", ["", " "])
@given(asked=hard_texts(FRAGMENTS, 12))
@example(asked=("<tool_call>" + " " * 6_000 + "word", 8))
@example(asked=("word" + " " * 6_000 + "<tool_call>", 8))
@example(asked=("\n" + " " * 6_000 + "\n x", 8))
@settings(max_examples=5, deadline=None)
def test_what_is_kept_of_a_long_text(family: str, lead: str, asked: tuple[str, int]) -> None:
    assert_kept(counted(family, lead), *asked)


@pytest.mark.parametrize(
    ("parts", "split", "normalizer"),
    [
        (("llama_models", "llama3", "tokenizer.model"), LLAMA_3, None),
        (("dashscope", "resources", "qwen.tiktoken"), QWEN, normalizers.NFC()),
    ],
)
def test_real_vocabularies(
    tmp_path: Path, parts: tuple[str, ...], split: str, normalizer: Any
) -> None:
    tokenizer = Tokenizer(byte_pairs(needs_vocabulary(*parts)))
    if normalizer:
        tokenizer.normalizer = normalizer
        tokenizer.add_tokens(added("<tool_call>", "<think>", "</think>"))
    tokenizer.pre_tokenizer = split_on_bytes(split)
    tokenizer.add_special_tokens(["<|end|>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|end|>")
    fast.save_pretrained(tmp_path)
    source = load_tokenizer(tmp_path)
    assert source.whole.encode("Hello world, positive").tokens[-1] == "Ġpositive"
    own = Tokenizer.from_str(json.dumps(text_tokenizer(source, " ")))
    for text in [*(f"x{part}y" for part in FRAGMENTS), "a<think></think> b<tool_call>\u0338"]:
        assert ids_of(own, text) == ids_of(source.whole, " " + text)
    kept = CountingTokenizer(own)
    for text in ("a good film " * 1_000, "日本語が" * 36_000, "a" * 140_001):
        assert_kept(kept, text, 3)
    template, stops = (
        parse_template("Review: {text}\nIs:"),
        [["good."], ["bad !"], ["so ..."], ["fine"]],
    )
    assert gap_share(template, source, stops) == 0.75
    proposal = with_clean_suffix(template, source, stops)
    assert proposal is not None
    assert gap_share(proposal, source, stops) == 0
