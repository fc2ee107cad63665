"""Tokenizers with tokens that the embedding has no row for."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import tiny
from models import GEMMA_MINI, tokenizer_definition
from trimexport import BuildSpec, SpecError, TrimexportError, UnsupportedError, plan
from trimexport.bundle.files import first_manifest, save_manifest, write_client_files
from trimexport.prompt.tokenizer import load_tokenizer
from trimexport.prompt.tokenizer_choice import known_tokens
from trimexport.source.checkpoint import open_checkpoint
from trimexport_runtime import Classifier, read_manifest

ROWS = 8000
Definition = dict[str, Any]
Tokens = Callable[..., Path]


def added(content: str, number: int, *, special: bool = False) -> Definition:
    """An added token of a tokenizer.json."""
    own = tokenizer_definition()["added_tokens"][0]
    return {**own, "id": number, "content": content, "special": special}


@pytest.fixture
def with_tokens(tmp_path: Path) -> Tokens:
    """A tokenizer with more added tokens; `pad` is its padding token, and `change` is done to its
    tokenizer.json."""

    def write(
        *more: Definition,
        pad: str = "<pad>",
        change: Callable[[Definition], None] = lambda definition: None,
    ) -> Path:
        place = tmp_path / "tokenizer"
        place.mkdir(exist_ok=True)
        definition = tokenizer_definition()
        definition["added_tokens"] += more
        change(definition)
        (place / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
        shutil.copyfile(GEMMA_MINI / "tokenizer_config.json", place / "tokenizer_config.json")
        tiny.edit_json(place / "tokenizer_config.json", lambda it: it.update(pad_token=pad))
        return place

    return write


def spec(place: Path, prompt: str = tiny.PROMPT, **more: Any) -> BuildSpec:
    return BuildSpec(
        precision=("fp32",),
        model=str(tiny.tiny_model()),
        labels=("positive", "negative"),
        prompt=prompt,
        tokenizer=str(place),
        **more,
    )


def refused(message: str, asked: BuildSpec, kind: type[TrimexportError] = SpecError) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        plan(asked)


def test_a_bundle_reads_them_as_characters(with_tokens: Tokens, tiny_bundle_copy: Path) -> None:
    """The client's files and manifest of such a plan, around graphs that are there already; texts
    of different lengths, so that some are padded."""
    place = with_tokens(added("<img>", ROWS), added("[PAD]", ROWS + 1, special=True), pad="[PAD]")
    planned = plan(spec(place))
    assert planned.notes == (
        "added tokens of the tokenizer without a row in the embedding, which has 8,000: 1, the "
        "first '<img>' (8000); in a text they are read as characters",
        "the padding token '[PAD]' (8001) has no row in the embedding, which has 8,000; the bundle "
        "names '<eos>' (1) for padding, which is masked",
    )
    variants = read_manifest(tiny_bundle_copy).variants
    write_client_files(planned, variants, tiny_bundle_copy)
    save_manifest(first_manifest(planned, variants, tiny_bundle_copy, {}), tiny_bundle_copy)
    found = Classifier.load(tiny_bundle_copy)
    assert found.manifest.pad_token_id == 1
    own = Tokenizer.from_file(str(GEMMA_MINI / "tokenizer.json"))
    own.encode_special_tokens = True
    ids = own.encode(" see <img> here", add_special_tokens=False).ids
    assert found.encode("see <img> here").ids.tolist() == ids
    texts = ("see <img> here", "[PAD]", *tiny.TEXTS)
    assert found.classify(texts) == [found.classify([text])[0] for text in texts]


@pytest.mark.parametrize("special", [True, False])
def test_a_prompt_does_not_have_them(with_tokens: Tokens, special: bool) -> None:
    refused(
        f"the prompt has the token '<more>' (8000), and the embedding of {tiny.tiny_model()} has "
        "8,000 rows; write the prompt without it",
        spec(with_tokens(added("<more>", ROWS, special=special)), "Review: {text}<more>"),
    )


def test_special_ones_need_no_word(with_tokens: Tokens) -> None:
    """As Gemma 3's token for images: a text cannot have it."""
    assert plan(spec(with_tokens(added("<more>", ROWS, special=True)))).notes == ()


def test_a_start_token_that_is_not_known(with_tokens: Tokens) -> None:
    def rename(definition: Definition) -> None:
        text = json.dumps(definition["post_processor"]).replace("<bos>", "<start>")
        definition["post_processor"] = json.loads(text)
        definition["post_processor"]["special_tokens"]["<start>"]["ids"] = [ROWS]

    refused(
        f"the tokenizer writes the token '<start>' (8000) around every string, and the embedding "
        f"of {tiny.tiny_model()} has 8,000 rows; give the model's own with --tokenizer",
        spec(with_tokens(added("<start>", ROWS, special=True), change=rename)),
    )


def test_a_chat_template_writes_one(with_tokens: Tokens) -> None:
    place = with_tokens(added("<turn>", ROWS, special=True))
    template = "{{ bos_token }}<turn>{{ messages[0]['content'] }}<turn>\n"
    tiny.edit_json(place / "tokenizer_config.json", lambda it: it.update(chat_template=template))
    refused(
        "the chat template writes the token '<turn>' (8000), and the embedding of "
        f"{tiny.tiny_model()} has 8,000 rows, so the model was not trained on it; drop --chat",
        spec(place, chat=True),
    )


def test_an_unknown_token_is_not_found_in_a_word(with_tokens: Tokens) -> None:
    """Not even by a model that looks whole words up before it merges pairs."""

    def whole_words(definition: Definition) -> None:
        definition["model"]["ignore_merges"] = True
        definition["model"]["vocab"] |= {"xyzzy": ROWS, "qwxyz": ROWS + 1}

    place = with_tokens(
        added("xyzzy", ROWS), added("qwxyz", ROWS + 1, special=True), change=whole_words
    )
    text_tokenizer = Tokenizer.from_str(json.dumps(plan(spec(place, "{text}:")).text_tokenizer))
    for text in ("xyzzy", "qwxyz", "a xyzzy b qwxyz"):
        assert max(text_tokenizer.encode(text, add_special_tokens=False).ids) < ROWS


def test_a_merge_that_makes_an_added_token(with_tokens: Tokens) -> None:
    def merge(definition: Definition) -> None:
        definition["model"]["vocab"]["▁films"] = ROWS
        definition["model"]["merges"].append(["▁film", "s"])

    refused(
        "the tokenizer cannot do without its tokens beyond the 8,000 rows of the embedding",
        spec(with_tokens(added("▁films", ROWS), change=merge)),
        UnsupportedError,
    )


def test_nothing_is_left_to_pad_with(with_tokens: Tokens) -> None:
    tokenizer = load_tokenizer(with_tokens(added("[PAD]", ROWS, special=True), pad="[PAD]"))
    checkpoint = open_checkpoint(tiny.tiny_model(), "", None)
    tokenizer = replace(tokenizer, padding=tokenizer.padding[:1])
    with pytest.raises(UnsupportedError, match=r"padding token '\[PAD\]' \(8000\) is beyond the"):
        known_tokens(tokenizer, tiny.tiny_model(), checkpoint)
