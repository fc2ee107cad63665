"""Tokenizers: those of GGUF files, and those that are named instead of a model's own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

import tiny
from families import make
from gguf_models import add_tokenizer, finish, write_gguf
from models import GEMMA_MINI, TEXTS, tokenizer_definition
from trained_tokenizers import FAMILIES, pieces, save_tokenizer
from trimexport import BuildSpec, CheckpointError, UnsupportedError, plan
from trimexport.prompt.tokenizer import SourceTokenizer, load_tokenizer
from trimexport.prompt.tokenizer_choice import difference_note

MORE = (
    *TEXTS,
    "1234 and  12",
    "<tool_call>it 's</think>\n\n\n x",
    "</s><eos>",
    " ",
    "\n\n",
    "ça é",
)


def vocabulary(directory: Path, architecture: str, **metadata: Any) -> SourceTokenizer:
    """The tokenizer of a GGUF file that has the one in `directory`, and not a tensor."""
    file = directory / "vocabulary.gguf"
    writer = gguf.GGUFWriter(file, architecture)
    add_tokenizer(writer, directory)
    for key, value in metadata.items():
        writer.kv_data[0].pop(f"tokenizer.ggml.{key}", None)
        if isinstance(value, str):
            writer.add_string(f"tokenizer.ggml.{key}", value)
        elif value is not None:
            writer.add_bool(f"tokenizer.ggml.{key}", value)
    finish(writer)
    return load_tokenizer(file)


def assert_same(found: SourceTokenizer, own: SourceTokenizer) -> None:
    for text in MORE:
        assert found.encode_start(text) == own.encode_start(text), text
        assert found.encode_inside(text) == own.encode_inside(text), text
    assert found.lead("Review:", " ") == own.lead("Review:", " ")
    assert found.lead("", "") == own.lead("", "")


@pytest.mark.parametrize("architecture", ["gemma", "gemma2", "gemma3"])
def test_gemmas_pieces(architecture: str, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(GEMMA_MINI / name, tmp_path / name)
    own = load_tokenizer(tmp_path)
    found = vocabulary(tmp_path, architecture)
    assert_same(found, own)
    assert (found.pad_token, found.pad_token_id) == ("<pad>", 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_bytes(name: str, tmp_path: Path) -> None:
    save_tokenizer(name, tmp_path)
    own = load_tokenizer(tmp_path)
    assert_same(vocabulary(tmp_path, "llama"), own)


def test_digits_stand_alone_in_smollms_way_of_splitting(tmp_path: Path) -> None:
    save_tokenizer("gpt 2", tmp_path)
    found = vocabulary(tmp_path, "llama", pre="smollm")
    definition = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    digits = {"type": "Digits", "individual_digits": True}
    parts = [digits, {**level, "use_regex": True}]
    definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}
    own = Tokenizer.from_str(json.dumps(definition))
    for text in (*MORE, "in 1999  and 20 000"):
        assert list(found.encode_start(text)) == own.encode(text).ids, text


@pytest.mark.parametrize("spaced", [True, False])
def test_llamas_pieces(spaced: bool, tmp_path: Path) -> None:
    tokenizer = pieces("first" if spaced else "never", [])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(tmp_path)
    own = load_tokenizer(tmp_path)
    found = vocabulary(tmp_path, "llama", add_space_prefix=spaced)
    for text in ("a good film", " positive", "Review: a good\nfilm"):
        ids = found.encode_start(text, rendered=True)
        assert ids == own.encode_start(text, rendered=True), text


@pytest.mark.parametrize(
    ("metadata", "kind", "message"),
    [
        ({"tokens": None}, CheckpointError, "has no tokenizer in its metadata; give the model's"),
        ({"model": "rwkv"}, UnsupportedError, "is of llama.cpp's kind rwkv; llama and gpt2 are"),
        ({"pre": "dbrx"}, UnsupportedError, "splits texts in the way dbrx; those that are read"),
        ({"pre": None}, UnsupportedError, "splits texts in the way None; those that are read"),
    ],
)
def test_a_tokenizer_that_cannot_be_read(
    metadata: dict[str, Any], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    save_tokenizer("qwen", tmp_path)
    with pytest.raises(kind, match=message) as caught:
        vocabulary(tmp_path, "qwen2", **metadata)
    assert "give the model's own tokenizer with --tokenizer" in str(caught.value)


def test_a_damaged_vocabulary(tmp_path: Path) -> None:
    """Merges of tokens that are not there."""
    save_tokenizer("qwen", tmp_path)
    path = tmp_path / "tokenizer.json"
    definition = json.loads(path.read_text(encoding="utf-8"))
    definition["model"]["merges"].append(["no", "such"])
    path.write_text(json.dumps(definition), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"the tokenizer of .* cannot be loaded"):
        vocabulary(tmp_path, "qwen2")


def spec(**options: Any) -> BuildSpec:
    return BuildSpec(
        **{
            "model": str(tiny.tiny_model()),
            "labels": ("positive", "negative"),
            "prompt": tiny.PROMPT,
            "precision": ("fp32",),
            **options,
        }
    )


@pytest.fixture
def tokenizer_copy(tmp_path: Path) -> Path:
    """gemma-mini's tokenizer without a model."""
    place = tmp_path / "tokenizer"
    place.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(GEMMA_MINI / name, place / name)
    return place


@pytest.mark.parametrize("what", ["directory", "its file", "another file", "a GGUF"])
def test_a_tokenizer_that_is_named(what: str, tiny_copy: Path, tokenizer_copy: Path) -> None:
    place = tokenizer_copy
    if what == "a GGUF":
        vocabulary(place, "gemma")
        place /= "vocabulary.gguf"
    elif what != "directory":
        place /= "tokenizer.json"
    if what == "another file":  # which has no settings beside it
        place = place.rename(tiny_copy.parent / "mine.json")
    own = plan(spec(model=str(tiny_copy)))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tiny_copy / name).unlink()
    with pytest.raises(CheckpointError, match="or name their directory with --tokenizer"):
        plan(spec(model=str(tiny_copy)))
    found = plan(spec(model=str(tiny_copy), tokenizer=str(place)))
    assert found.prompt == own.prompt
    assert found.verbalizer == own.verbalizer
    assert found.tokenizer.encode_start("a film") == own.tokenizer.encode_start("a film")


@pytest.mark.parametrize("name", ["none/at/all", "", " ", "google/gemma-2b"])
def test_no_tokenizer_of_that_name(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer '.*'; --tokenizer takes a directory"):
        plan(spec(tokenizer=name))


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    place = tmp_path / "mine.json"
    place.write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"the tokenizer of .*mine.json cannot be loaded"):
        plan(spec(tokenizer=str(place)))


def test_a_vocabulary_that_is_larger_than_the_embedding(tokenizer_copy: Path) -> None:
    definition = tokenizer_definition()
    definition["model"]["vocab"] |= {"xyzzy": 8000, "xyzzz": 8001}
    (tokenizer_copy / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
    message = (
        "has 2 tokens that .*tiny does not know, the first of them 'xyzzy' .8000.: its embedding "
        "has 8,000 rows; give the model's own with --tokenizer"
    )
    with pytest.raises(UnsupportedError, match=message):
        plan(spec(tokenizer=str(tokenizer_copy)))


def test_the_differences_are_counted(tokenizer_copy: Path) -> None:
    place = tokenizer_copy / "tokenizer.json"
    definition = tokenizer_definition()
    merges = definition["model"]["merges"]
    definition["model"]["merges"] = [pair for pair in merges if "".join(pair) != "▁film"]
    place.write_text(json.dumps(definition), encoding="utf-8")
    planned = plan(spec(tokenizer=str(tokenizer_copy)))
    texts = ("a play", "a film", "the films")
    note = difference_note(str(place), planned.tokenizer, planned.checkpoint, texts)
    assert note is not None
    assert "gives other tokens than the tokenizer of" in note
    assert "for 2 of 3 texts, the first of them 'a film'" in note
    assert difference_note(str(place), planned.tokenizer, planned.checkpoint, texts[:1]) is None
    assert difference_note(None, planned.tokenizer, planned.checkpoint, texts) is None


def test_nothing_to_compare_with(tmp_path: Path, tokenizer_copy: Path) -> None:
    directory = make("gemma", tmp_path / "model", layers=1)
    file = write_gguf(directory, tmp_path / "model.gguf", tokenizer=False)
    with pytest.raises(CheckpointError, match="has no tokenizer in its metadata; give the model's"):
        plan(spec(model=str(file)))
    planned = plan(spec(model=str(file), tokenizer=str(tokenizer_copy)))
    given = str(tokenizer_copy)
    assert difference_note(given, planned.tokenizer, planned.checkpoint, TEXTS) is None


def test_a_recipe_names_a_tokenizer_beside_it(tmp_path: Path, tokenizer_copy: Path) -> None:
    from trimexport.spec import read_recipe

    recipe = tmp_path / "recipe.toml"
    (tmp_path / "model.gguf").touch()
    recipe.write_text("model = 'model.gguf'\ntokenizer = 'tokenizer'\n", encoding="utf-8")
    found = read_recipe(recipe)
    assert found.model == str(tmp_path / "model.gguf")
    assert found.tokenizer == os.fspath(tokenizer_copy)
