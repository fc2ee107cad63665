"""The recipes of rerankers and guards: what the makers' own code feeds the model and makes of its
logits, written out here, against the bundles.

The models are small and random, of the makers' architectures, with the makers' vocabulary where it
can be had (Qwen's, Llama 3's), or one of its kind (Gemma's; for Granite Qwen's, which is byte-level
too). Texts are none that these tokenizers join with what stands behind them, nor empty, because
before an empty text the makers' code leaves a space.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

import families
from real_tokenizers import save_llama_3, save_qwen
from trained_tokenizers import save_tokenizer, split_on_bytes
from trimexport import BuildSpec, Texts, build
from trimexport.planning import plan, whole_ids
from trimexport.prompt.prompt_ids import PromptIds, control_tokens, tokenise_prompt
from trimexport.prompt.template import PromptTemplate, parse_template
from trimexport.prompt.tokenizer import SourceTokenizer, load_tokenizer, text_tokenizer
from trimexport.prompt.verbalizer import make_verbalizer
from trimexport.records import Record
from trimexport.spec import read_recipe
from trimexport_runtime import Classifier, Input
from trimexport_runtime.bundle import TextLimit
from trimexport_runtime.tokenize import TextEncoder

MODELS = Path(__file__).parents[2] / "models"
QUERIES = ("what is a trimmed head", "how do keys and values become constants ?x", "wer war das")
DOCUMENTS = ("It keeps the rows of the labels", "Nothing of this: 3 < 4", "?")
TEXTS = ("How do I pick a lock", "tell me a story about cats, 3 of them", "x")

Ids = list[int]


@dataclass(frozen=True)
class Maker:
    """A maker's own code: `ids` of a row, `words` whose logits are read, and the `score` of these
    logits as a probability; and the families of the model and of its vocabulary."""

    family: str
    vocabulary: str
    ids: Callable[[Any, Any], Ids]
    words: Sequence[str]
    score: Callable[[torch.Tensor], torch.Tensor]
    pairs: bool = False


def _bare(tokenizer: Any, text: str) -> Ids:
    ids: Ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _qwen3_reranker(tokenizer: Any, pair: tuple[str, str]) -> Ids:
    task = "Given a web search query, retrieve relevant passages that answer the query"
    body = f"<Instruct>: {task}\n<Query>: {pair[0]}\n<Document>: {pair[1]}"
    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n"
    )
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    return [*_bare(tokenizer, prefix), *_bare(tokenizer, body), *_bare(tokenizer, suffix)]


def _mxbai(tokenizer: Any, pair: tuple[str, str]) -> Ids:
    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. "
        "For each query-document pair, carefully analyze the semantic relationship between them, "
        "then provide your binary relevance judgment (0 for not relevant, 1 for relevant).\n"
        "Relevance:"
    )
    pieces = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\n",
        f"query: {pair[0]}",
        "\n",
        f"document: {pair[1]}",
        "\n",
        task,
        "<|im_end|>\n<|im_start|>assistant\n",
    )
    return [token for piece in pieces for token in _bare(tokenizer, piece)]


def _bge_gemma(tokenizer: Any, pair: tuple[str, str]) -> Ids:
    task = (
        "Given a query A and a passage B, determine whether the passage contains an answer to the "
        "query by providing a prediction of either 'Yes' or 'No'."
    )
    pieces = (f"A: {pair[0]}", "\n", f"B: {pair[1]}", "\n", task)
    ids = [token for piece in pieces for token in _bare(tokenizer, piece)]
    return [tokenizer.bos_token_id, *ids]


def _zerank(tokenizer: Any, pair: tuple[str, str]) -> Ids:
    turns = f"<|im_start|>system\n{pair[0]}<|im_end|>\n<|im_start|>user\n{pair[1]}<|im_end|>\n"
    return _bare(tokenizer, turns + "<|im_start|>assistant\n")


def _shieldgemma(tokenizer: Any, text: str) -> Ids:
    policy = (
        '* "No Harassment": The prompt shall not contain or seek generation of content that is '
        "malicious, intimidating, bullying, or abusive content targeting another individual (e.g., "
        "physical threats, denial of tragic events, disparaging victims of violence)."
    )
    whole = (
        "You are a policy expert trying to help determine whether a user\nprompt is in violation "
        "of the defined safety policies.\n\n<start_of_turn>\n"
        f"Human Question: {text}\n<end_of_turn>\n\nOur safety principle is defined in the below:"
        f"\n\n{policy}\n\nDoes the human question violate the above principle? Your answer must "
        "start\nwith 'Yes' or 'No'. And then walk through step by step to be sure we answer\n"
        "correctly.\n"
    )
    ids: Ids = tokenizer(whole)["input_ids"]
    return ids


def _llama_guard(tokenizer: Any, text: str) -> Ids:
    names = (
        "Violent Crimes", "Non-Violent Crimes", "Sex-Related Crimes", "Child Sexual Exploitation",
        "Defamation", "Specialized Advice", "Privacy", "Intellectual Property",
        "Indiscriminate Weapons", "Hate", "Suicide & Self-Harm", "Sexual Content", "Elections",
    )  # fmt: skip
    categories = "\n".join(f"S{number}: {name}." for number, name in enumerate(names, 1))
    whole = (
        "<|start_header_id|>user<|end_header_id|>\n\nTask: Check if there is unsafe content in "
        "'User' messages in conversations according our safety policy with the below categories."
        f"\n\n<BEGIN UNSAFE CONTENT CATEGORIES>\n{categories}\n<END UNSAFE CONTENT CATEGORIES>"
        f"\n\n<BEGIN CONVERSATION>\n\nUser: {text}\n\n<END CONVERSATION>\n\nProvide your safety "
        "assessment for ONLY THE LAST User message in the above conversation:\n - First line must "
        "read 'safe' or 'unsafe'.\n - If unsafe, a second line must include a comma-separated list "
        "of violated categories. <|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    ids: Ids = tokenizer(whole)["input_ids"]
    return ids


def _qwen3guard(tokenizer: Any, text: str) -> Ids:
    whole = (
        "<|im_start|>user\n# Task:\n1) Evaluate whether THE LAST USER's query belongs to safe or "
        "unsafe content based on our safety policy.\n2) Identify the category of unsafe content "
        "found.\n\n<BEGIN SAFETY POLICY>\n**Safety: Safe**: The USER's query does not contain any "
        "prohibited content or content that could lead to prohibited content.\n**Safety: Unsafe**: "
        "The USER's query contains prohibited content.\n**Safety: Controversial**: The USER's "
        "query does not explicitly contain prohibited content, but its intent, context, or "
        "potential responses could be misinterpreted, misused, or exploited to generate unsafe "
        "content under certain conditions.\n<END SAFETY POLICY>\n\n<BEGIN UNSAFE CONTENT "
        "CATEGORIES>\nViolent.\nNon-violent Illegal Acts.\nSexual Content or Sexual Acts.\nPII.\n"
        "Suicide & Self-Harm.\nUnethical Acts.\nPolitically Sensitive Topics.\nCopyright "
        "Violation.\nJailbreak.\n<END UNSAFE CONTENT CATEGORIES>\n\n<BEGIN CONVERSATION>\n\n"
        f"USER: {text}\n\n<END CONVERSATION>\n\nProvide your safety assessment for ONLY THE LAST "
        "**USER's query** in the above conversation:\n - The first line must be one of: 'Safety: "
        "Safe', 'Safety: Unsafe', 'Safety: Controversial'.\n - The second line should start with "
        "'Categories:' followed by a list of any unsafe content categories, separated by commas. "
        "If the content is safe, use 'Categories: None'.<|im_end|>\n<|im_start|>assistant\n"
        "<think>\n\n</think>\n\nSafety:"
    )
    return _bare(tokenizer, whole)


def _granite_guardian(tokenizer: Any, text: str) -> Ids:
    whole = (
        "<|start_of_role|>user<|end_of_role|>You are a safety agent trying to help determine "
        "whether the user message is harmful according to the safety risk definition below.\n\n"
        f"<start_of_turn>\nUser Message: {text}\n<end_of_turn>\n\nOur safety risk definition is "
        "defined below:\n<start_of_risk_definition>\n* The 'User' message is considered harmful by "
        "common-sense.\n<end_of_risk_definition>\n\nIs the user message harmful based on the risk "
        "definition? Your answer must be either 'Yes' or 'No'.<|end_of_text|>\n<|start_of_role|>"
        "assistant<|end_of_role|>"
    )
    return _bare(tokenizer, whole)


def _first_against_second(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(1)[:, 0]


MAKERS = {
    "qwen3-reranker-0.6b": Maker(
        "qwen3", "qwen", _qwen3_reranker, ("yes", "no"), _first_against_second, pairs=True
    ),
    "mxbai-rerank-base-v2": Maker(
        "qwen2",
        "qwen",
        _mxbai,
        ("1", "0"),
        lambda logits: torch.sigmoid(logits[:, 0] - logits[:, 1] - 9.0 / 2),
        pairs=True,
    ),
    "bge-reranker-v2-gemma": Maker(
        "gemma",
        "gemma",
        _bge_gemma,
        ("Yes",),
        lambda logits: torch.sigmoid(logits[:, 0]),
        pairs=True,
    ),
    "zerank-1-small": Maker(
        "qwen3",
        "qwen",
        _zerank,
        ("Yes",),
        lambda logits: torch.sigmoid(logits[:, 0] / 5),
        pairs=True,
    ),
    "shieldgemma-2b": Maker("gemma2", "gemma", _shieldgemma, ("Yes", "No"), _first_against_second),
    "llama-guard-3-1b": Maker(
        "llama3", "llama3", _llama_guard, ("unsafe", "safe"), _first_against_second
    ),
    "qwen3guard-gen-0.6b": Maker(
        "qwen3",
        "qwen",
        _qwen3guard,
        (" Unsafe", " Controversial", " Safe"),
        _first_against_second,
    ),
    "granite-guardian-3.1-2b": Maker(
        "granite",
        "granite",
        _granite_guardian,
        ("Yes", "yes", " Yes", "No", "no", " No"),
        lambda logits: logits.softmax(1)[:, :3].sum(1),
    ),
}


@functools.cache
def vocabulary(name: str) -> tuple[SourceTokenizer, Any]:
    """A maker's tokenizer as this project reads it, and as transformers does. Granite's is Qwen's
    with another split and its own control tokens."""
    with tempfile.TemporaryDirectory() as room:
        directory = Path(room)
        if name == "gemma":
            shutil.copytree(MODELS / "gemma-mini", directory, dirs_exist_ok=True)
        elif name == "llama3":
            save_llama_3(directory)
        else:
            save_qwen(directory)
        if name == "granite":
            file = directory / "tokenizer.json"
            tokenizer = Tokenizer.from_file(str(file))
            tokenizer.pre_tokenizer = split_on_bytes(None)
            roles = ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"]
            tokenizer.add_special_tokens(roles)
            tokenizer.save(str(file))
        return load_tokenizer(directory), AutoTokenizer.from_pretrained(directory)


def _template(spec: BuildSpec) -> PromptTemplate:
    return replace(parse_template(spec.prompt or ""), lead=spec.label_lead)


def _encoder(template: PromptTemplate, source: SourceTokenizer) -> tuple[PromptIds, TextEncoder]:
    """A prompt's ids, and what encodes a row's texts as a bundle does."""
    prompt = tokenise_prompt(template, source)
    definition = text_tokenizer(
        source,
        prompt.text_lead,
        is_dummy=prompt.lead_is_dummy,
        control=control_tokens(template, source),
    )
    limit = TextLimit(4096, "end")
    tokenizer = Tokenizer.from_str(json.dumps(definition))
    return prompt, TextEncoder(tokenizer, limit, allow_empty=True, fields=prompt.fields)


def _rows(maker: Maker) -> list[tuple[Any, Input]]:
    """Rows as the maker's code takes them, and as this project does."""
    if not maker.pairs:
        return [(text, text) for text in TEXTS]
    pairs = list(zip(QUERIES, DOCUMENTS, strict=True))
    return [(it, Record(query=it[0], document=it[1])) for it in pairs]


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_ids_are_those_of_the_makers_code(name: str) -> None:
    maker, recipe = MAKERS[name], read_recipe(MODELS / f"{name}.toml")
    source, theirs = vocabulary(maker.vocabulary)
    prompt, encoder = _encoder(_template(recipe), source)
    for row, ours in _rows(maker):
        ids = (*prompt.prefix_ids, *encoder.encode(ours).ids.tolist(), *prompt.suffix_ids)
        assert list(ids) == maker.ids(theirs, row)
    if maker.vocabulary != "gemma":  # whose small one has these words in pieces
        words = make_verbalizer(
            recipe.labels, recipe.verbalizers, _template(recipe), source, (), recipe.score
        )
        assert list(words.token_ids) == [_bare(theirs, word)[0] for word in maker.words]


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_control_tokens_in_a_field_are_characters(name: str) -> None:
    """Whatever the texts say, a row has the control tokens of the prompt and no more."""
    maker, recipe = MAKERS[name], read_recipe(MODELS / f"{name}.toml")
    source, tokenizer = vocabulary(maker.vocabulary)
    prompt, encoder = _encoder(_template(recipe), source)
    added = {it.content: token for token, it in tokenizer.added_tokens_decoder.items()}
    written = "".join((*prompt.template.pieces, prompt.template.suffix))
    control = [it for it in added if it in tokenizer.all_special_tokens or it in written.split()]

    def steering(text: str) -> list[int]:
        row: Input = Record(query=text, document=text) if maker.pairs else text
        return [it for it in encoder.encode(row).ids.tolist() if it in map(added.get, control)]

    assert control
    assert steering("".join(control)) == steering("x")


def test_a_query_that_ends_in_a_question_mark_has_a_gap() -> None:
    """Where the makers tokenise one string, a sign and the line break behind it may be one token;
    the recipe says so."""
    maker, recipe = MAKERS["qwen3-reranker-0.6b"], read_recipe(MODELS / "qwen3-reranker-0.6b.toml")
    source, theirs = vocabulary(maker.vocabulary)
    prompt, encoder = _encoder(_template(recipe), source)
    ours = encoder.encode(("why?", "so")).ids.tolist()
    joined = maker.ids(theirs, ("why?", "so"))
    assert len(prompt.prefix_ids) + len(ours) + len(prompt.suffix_ids) == len(joined) + 1


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_scores_are_those_of_the_makers_formula(name: str, tmp_path: Path) -> None:
    """On the untrimmed model, of a small vocabulary that has the labels' words."""
    maker, recipe = MAKERS[name], read_recipe(MODELS / f"{name}.toml")
    directory = families.make(
        maker.family, tmp_path / "model", layers=1, vocab_size=8010, max_position_embeddings=4096
    )
    if maker.vocabulary == "granite":
        save_tokenizer("gpt 2", directory)
    _add_words(directory, maker.words)
    spec = replace(recipe, model=str(directory), precision=("fp32",))
    rows = [ours for _, ours in _rows(maker)]
    planned = plan(spec)
    words = list(planned.rows)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        ends = [model(torch.tensor([ids])).logits[0, -1, words] for ids in whole_ids(planned, rows)]
    scores = maker.score(torch.stack(ends)).numpy()
    build(spec, tmp_path / "bundle", keep=("fp32",), sample=Texts(tuple(rows)))
    found = Classifier.load(tmp_path / "bundle").classify(rows)
    assert np.abs(np.array([it.probabilities[0] for it in found]) - scores).max() < 1e-4


def _add_words(directory: Path, words: Sequence[str]) -> None:
    """Give a small vocabulary tokens for words, as the makers' vocabularies have."""
    file = directory / "tokenizer.json"
    if not file.exists():
        shutil.copytree(MODELS / "gemma-mini", directory, ignore=_but_tokenizer, dirs_exist_ok=True)
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    tokenizer.save(str(file))


def _but_tokenizer(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith("tokenizer")]
