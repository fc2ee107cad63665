"""Templates: parsing, segments, and what is tokenised where."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from string import ascii_letters
from typing import Any

import pytest
from test_family_tokenizers import source_of
from tokenizers import Tokenizer, models

from models import GEMMA_MINI, tokenizer_definition
from trimexport import SpecError, UnsupportedError
from trimexport.prompt.prompt_ids import control_tokens, tokenise_prompt
from trimexport.prompt.template import (
    PromptTemplate,
    TemplateField,
    join,
    literal_template,
    parse_template,
    unescape,
)
from trimexport.prompt.tokenizer import SourceTokenizer, load_tokenizer
from trimexport_runtime.bundle import Field


def test_prefix_and_suffix() -> None:
    template = parse_template("Review: {text}\nSentiment:")
    assert (template.prefix, template.suffix) == ("Review: ", "\nSentiment:")
    assert (template.fields, template.label_lead) == ((TemplateField("text"),), " ")
    assert join(template, ["good"]) == "Review: good\nSentiment:"


def test_doubled_braces_are_literal() -> None:
    template = parse_template('{{"text": "{text}"}}')
    assert (template.prefix, template.suffix) == ('{"text": "', '"}')


@pytest.mark.parametrize(
    ("source", "lead"),
    [
        ("{text}\nAnswer:", " "),
        ("{text}\nAnswer: ", " "),
        ("{text}\nAnswer:\n", ""),
        ('{text}\nAnswer: "', ""),
        ("{text} is", " "),
        ("Is it good? {text}", " "),
        ("Is it good?\n{text}", " "),
        ("{text}", " "),
    ],
)
def test_what_stands_before_a_label(source: str, lead: str) -> None:
    """A word gets its space, unless white space or an opening sign of the prompt is before it."""
    assert parse_template(source).label_lead == lead


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("Review:", "has no field: write {text} where the text to classify goes"),
        ("{text} and {text}", "has the field {text} 2 times; write it once"),
        ("{a} {b=x} {a=y}", "has the field {a} 2 times; write it once"),
        ("{text=all} of {other=it}", "has a default, so there is nothing to classify"),
        ("{text} {a name}", "single '{' that is not part of a field such as {text}"),
        ("{text} {2nd}", "single '{'"),
        ("{text} {a=b{c}", "single '{'"),
        ("{text} {a", "single '{'"),
        (
            "{text} }",
            "single '}' that is not part of a field such as {text} or {text=a default}; write '}}'",
        ),
    ],
)
def test_errors(source: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        parse_template(source)


def test_fields() -> None:
    """In any order, by any name, with a default or without one."""
    source = "A {{:\n{one}, {_2=Is it so? = yes}\n{Three=}: "
    template = parse_template(source)
    assert template == PromptTemplate(
        source,
        prefix="A {:\n",
        suffix=": ",
        fields=(
            TemplateField("one"),
            TemplateField("_2", before=", ", default="Is it so? = yes"),
            TemplateField("Three", before="\n", default=""),
        ),
    )
    assert template.required == ("one",)
    assert join(template, ["a", "b", "c"]) == "A {:\na, b\nc:"
    assert literal_template(("A {:\n", ", ", "\n", ": "), template.fields) == template


def test_ids_of_fields() -> None:
    """The spaces before a field go to its text; pieces are tokenised apart, without bos."""
    tokenizer = load_tokenizer(GEMMA_MINI)
    prompt = tokenise_prompt(parse_template("A: {a}\nB: {b}  \nC: {c=good} ."), tokenizer)
    assert prompt.prefix_ids == (2, *tokenizer.encode_inside("A:"))
    assert (prompt.text_lead, prompt.suffix_ids) == (" ", tokenizer.encode_inside(" ."))
    between = tokenizer.encode_inside("\nB:"), tokenizer.encode_inside("  \nC:")
    assert prompt.fields == (
        Field("a"), Field("b", before=between[0]), Field("c", before=between[1], default="good"),
    )  # fmt: skip


def test_each_field_has_its_own_lead_where_they_differ() -> None:
    prompt = tokenise_prompt(parse_template("A: {a}\n{b}  {c}"), load_tokenizer(GEMMA_MINI))
    assert (prompt.text_lead, [field.lead for field in prompt.fields]) == ("", [" ", "", "  "])
    assert prompt.notes == ()  # nobody's pair
    (note,) = tokenise_prompt(parse_template("A: {a}\n{b}"), load_tokenizer(GEMMA_MINI)).notes
    assert note.startswith("some fields have a space before them and others none")


def test_fields_that_meet() -> None:
    """Texts with nothing between them are refused where the tokenizer would fuse them."""
    message = "the fields {a} and {b} have nothing between them, and this tokenizer fuses texts"
    with pytest.raises(SpecError, match=re.escape(message)):
        tokenise_prompt(parse_template("A: {a}{b}"), load_tokenizer(GEMMA_MINI))
    letters = Tokenizer(models.BPE({letter: at for at, letter in enumerate(ascii_letters)}, []))
    characters = SourceTokenizer.of(json.loads(letters.to_str()), (("a", 0),))
    prompt = tokenise_prompt(parse_template("A{a}{b}"), characters)
    assert [field.before for field in prompt.fields] == [(), ()]


def test_fields_of_which_one_alone_has_a_dummy_prefix() -> None:
    message = "writes a space of its own before the field {a} and not before each other"
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        tokenise_prompt(parse_template("{a}\nB:{b}"), source_of("llama 2"))
    for template in ("A: {a}\nB: {b}", "A:{a}\nB:{b}"):
        prompt = tokenise_prompt(parse_template(template), source_of("llama 2"))
        assert not prompt.leads_differ


def test_control_tokens_of_a_chat_by_hand() -> None:
    """Those in its own pieces, marked special or not; elsewhere none."""
    source = source_of("qwen")
    numbers = {token["content"]: token["id"] for token in source.definition["added_tokens"]}
    chat = parse_template("<|end|>{a}<think>\n</think>{b}<|end|>\n")
    thinking = {numbers["<think>"], numbers["</think>"]}
    assert control_tokens(chat, source) >= thinking
    assert control_tokens(parse_template("{a}<think>\n{b}"), source) == frozenset()


def test_escapes_of_the_command_line() -> None:
    assert unescape(r"a\nb\tc\\n") == "a\nb\tc\\n"


def test_compiled_ids() -> None:
    """Trailing spaces of the prefix go to the text; bos opens the prefix and nothing else."""
    tokenizer = load_tokenizer(GEMMA_MINI)
    prompt = tokenise_prompt(parse_template("Review:  {text}\nSentiment: "), tokenizer)
    assert prompt.prefix_ids == (2, *tokenizer.encode_inside("Review:"))
    assert prompt.suffix_ids == tokenizer.encode_inside("\nSentiment:")
    assert prompt.text_lead == "  "


def test_control_tokens_of_the_prompt_work() -> None:
    """They are the prompt author's to use; only a text cannot write them."""
    tokenizer = load_tokenizer(GEMMA_MINI)
    template = parse_template("<start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model\n")
    prompt = tokenise_prompt(template, tokenizer)
    assert prompt.prefix_ids[:2] == (2, 106)
    assert prompt.suffix_ids[0] == 107


def _with_processor(directory: Path, processor: dict[str, Any]) -> SourceTokenizer:
    definition = tokenizer_definition()
    definition["post_processor"] = processor
    (directory / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
    config = (GEMMA_MINI / "tokenizer_config.json").read_text(encoding="utf-8")
    settings = json.loads(config)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return load_tokenizer(directory)


_TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<bos>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<eos>", "type_id": 0}},
    ],
    "pair": [
        {"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 0}},
    ],
    "special_tokens": {
        name: {"id": name, "ids": [number], "tokens": [name]}
        for name, number in (("<bos>", 2), ("<eos>", 1))
    },
}
_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize(
    "processor",
    [
        _TEMPLATE,
        {"type": "Sequence", "processors": [_LEVEL, _TEMPLATE]},
        {"type": "BertProcessing", "sep": ["<eos>", 1], "cls": ["<bos>", 2]},
        {
            "type": "RobertaProcessing",
            "sep": ["<eos>", 1],
            "cls": ["<bos>", 2],
            "trim_offsets": True,
            "add_prefix_space": False,
        },
    ],
)
def test_start_and_end_tokens(tmp_path: Path, processor: dict[str, Any]) -> None:
    """A rendered prompt writes its own start; a fine-tuned classifier's text ends in the end."""
    tokenizer = _with_processor(tmp_path, processor)
    whole = tuple(tokenizer.whole.encode("good").ids)
    assert whole == (*tokenizer.encode_start("good"), *tokenizer.end_ids)
    template = parse_template("<bos>{text}")
    rendered = tokenise_prompt(replace(template, rendered=True), tokenizer)
    assert (rendered.prefix_ids, rendered.suffix_ids) == ((2,), ())
    assert tokenise_prompt(template, tokenizer).prefix_ids == (2, 2)
    assert tokenise_prompt(parse_template("{text}"), tokenizer, ended=True).suffix_ids == (1,)
