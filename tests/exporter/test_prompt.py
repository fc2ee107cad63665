"""Templates: parsing, segments, and what is tokenised where."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models import GEMMA_MINI, tokenizer_definition
from trimexport import SpecError
from trimexport.prompt.template import join, parse_template, tokenise_prompt, unescape
from trimexport.prompt.tokenizer import SourceTokenizer, load_tokenizer


def test_prefix_and_suffix() -> None:
    template = parse_template("Review: {text}\nSentiment:")
    assert (template.prefix, template.suffix) == ("Review: ", "\nSentiment:")
    assert (template.text_lead, template.label_lead) == (" ", " ")
    assert join(template, "good") == "Review: good\nSentiment:"


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
        ("Review:", "has no {text}, it needs exactly one"),
        ("{text} and {text}", "has 2 {text}, it needs exactly one"),
        ("{text} {name}", "single '{'"),
        ("{text} }", "single '}'.*write '}}'"),
    ],
)
def test_errors(source: str, message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("{", r"\{").replace("}", r"\}")):
        parse_template(source)


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
