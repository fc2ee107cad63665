"""transformers.js in Node, as docs/clients.md says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import families
from clients.conftest import (
    TEXTS,
    Node,
    as_json,
    by_label,
    compare,
    snippet,
    with_line,
)
from trimexport import BuildSpec, plan
from trimexport.bundle.files import write_client_files
from trimexport_runtime.bundle import Variant
from trimexport_runtime.tokenize import TextEncoder

DTYPES = {"fp32": "fp32", "int8": "int8", "int4": "q4"}
BY_TASK = """
import { pipeline } from "@huggingface/transformers";
await pipeline("text-classification", process.argv[2]).catch((error) => console.log(error.message));
"""
TOKENISE = """
import { AutoTokenizer } from "@huggingface/transformers";
const tokenizer = await AutoTokenizer.from_pretrained(process.argv[2]);
const rows = JSON.parse(process.argv[3]).map((text) => tokenizer(text, { truncation: true }));
console.log(JSON.stringify(rows.map(({ input_ids }) => input_ids.tolist()[0].map(Number))));
"""
PAIRS = """
import { AutoTokenizer } from "@huggingface/transformers";
const tokenizer = await AutoTokenizer.from_pretrained(process.argv[2]);
const rows = JSON.parse(process.argv[3]).map(([text, text_pair]) => tokenizer(text, { text_pair }));
console.log(JSON.stringify(rows.map(({ input_ids }) => input_ids.tolist()[0].map(Number))));
"""


@pytest.mark.parametrize("variant", DTYPES)
def test_the_snippet(variants: Path, tmp_path: Path, node: Node, variant: str) -> None:
    """The page's program, with another variant, and with texts of all kinds. Its ONNX Runtime is
    another one than the runtime's, so only fp32 has to give the same numbers."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "sentiment").symlink_to(variants, target_is_directory=True)
    program = snippet("js", "transformers.js")
    program = with_line(program, "dtype", f"const dtype = {as_json(DTYPES[variant])};")
    program = with_line(program, "texts", f"const texts = {as_json(TEXTS)};")
    answers = json.loads(node(program))
    difference = compare([by_label(it) for it in answers], variants, variant)
    assert difference < (1e-3 if variant == "fp32" else 0.02)


def test_the_snippet_as_it_stands(variants: Path, tmp_path: Path, node: Node) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "sentiment").symlink_to(variants, target_is_directory=True)
    answers = json.loads(node(snippet("js", "transformers.js")))
    assert [it[0]["label"] for it in answers] == ["positive", "negative"]


def test_the_pipeline_by_task_refuses(variants: Path, node: Node) -> None:
    """Why the snippet goes by class; where this fails, the page can be simpler."""
    assert node(BY_TASK, variants).strip() == "Unsupported model type: gemma"


@pytest.mark.parametrize("name", ["gemma", "llama3", "qwen2", "gpt2"])
def test_the_same_tokens(tmp_path: Path, node: Node, name: str) -> None:
    """One family for each kind of tokenizer, with a space before the text."""
    spec = BuildSpec(
        precision=("fp32",),
        model=str(families.make(name, tmp_path / "model")),
        labels=("positive", "negative"),
        prompt="Review: {text}\nSentiment:",
    )
    planned = plan(spec)
    graph = "onnx/model.onnx"
    only = Variant("fp32", graph, (graph,), precision="fp32", opset=23, providers=(), bytes=1)
    write_client_files(planned, (only,), tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    assert len(expected[-1]) > planned.limit
    found = json.loads(node(TOKENISE, tmp_path, as_json(TEXTS)))
    assert found == [ids[: planned.limit] for ids in expected]


PAIR = " {rules=Say yes or no .}\nQuery: {query}\n<think>\n</think>Text: {text} ( {more=1})"


@pytest.mark.parametrize("name", ["gemma", "llama3", "qwen2", "gpt2"])
def test_the_same_tokens_of_pairs(tmp_path: Path, node: Node, name: str) -> None:
    """One family for each kind of tokenizer: ids of pieces and defaults around the two texts."""
    spec = BuildSpec(
        precision=("fp32",),
        model=str(families.make(name, tmp_path / "model")),
        labels=("positive", "negative"),
        prompt=PAIR,
    )
    planned = plan(spec)
    fp32 = Variant("fp32", "onnx/model.onnx", (), "fp32", opset=23, providers=(), bytes=1)
    write_client_files(planned, (fp32,), tmp_path)
    rows = list(zip(TEXTS[:-1], reversed(TEXTS[:-1]), strict=True))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    fields = planned.prompt.fields
    encoder = TextEncoder(tokenizer, planned.text_limit, allow_empty=True, fields=fields)
    expected = [encoder.encode(row).ids.tolist() for row in rows]
    assert len({field.before for field in fields}) == len(fields) == 4
    # transformers takes a class of its own for Qwen 2, which writes no space before a text.
    kind = PreTrainedTokenizerFast if name == "qwen2" else AutoTokenizer
    in_python = kind.from_pretrained(tmp_path)
    assert [in_python(*row)["input_ids"] for row in rows] == expected
    assert json.loads(node(PAIRS, tmp_path, json.dumps(rows))) == expected
