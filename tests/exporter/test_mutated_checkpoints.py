"""Checkpoints whose configuration or tokenizer files say what no program wrote: a plan is made, or
refused by an error of this package that says why.

TRIMEXPORT_FUZZ is three times as many as are tried.
"""

from __future__ import annotations

import functools
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

import tiny
from mutations import EXAMPLES, check_said, mutated, values
from trained_tokenizers import pieces
from trimexport import BuildSpec, TrimexportError, read_recipe
from trimexport.inspection.sizes import inspect_plan
from trimexport.planning import Plan, plan

ROWS = 264
SIZE = {
    "vocab_size": ROWS,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": [1, ROWS - 1],
}
CHAT = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}<s>"
LABELS = ("positive", "World")


def _tokenizer() -> PreTrainedTokenizerFast:
    backend = pieces("first", [AddedToken("<b>", normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", unk_token="<unk>", eos_token="[/INST]"
    )


def _models() -> dict[str, Any]:
    """A language model in two files, one with layers of two kinds, and a classifier."""
    scaling = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}
    answers = {"id2label": {0: "good", 1: "bad"}, "problem_type": "single_label_classification"}
    return {
        "gemma": GemmaForCausalLM(GemmaConfig(**SIZE)),
        "gemma3": Gemma3ForCausalLM(Gemma3TextConfig(**SIZE, sliding_window=8)),
        "classifier": LlamaForSequenceClassification(
            LlamaConfig(**SIZE, **answers, rope_scaling=scaling)
        ),
    }


@functools.cache
def checkpoints() -> dict[str, Path]:
    """The checkpoints, with every file that says something of the tokenizer."""
    found = {}
    for name, model in _models().items():
        found[name] = directory = tiny.tiny_root() / f"mutated-{name}"
        model.save_pretrained(directory, max_shard_size="20KB" if name == "gemma" else "5GB")
        tokenizer = _tokenizer()
        tokenizer.save_pretrained(directory)
        decoder = {
            str(number): {"content": token.content, "special": token.special}
            for number, token in tokenizer.added_tokens_decoder.items()
        }
        settings_ = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
        settings_ |= {"chat_template": CHAT, "added_tokens_decoder": decoder}
        for file, value in {
            "tokenizer_config.json": {**settings_, "additional_special_tokens": ["[INST]"]},
            "special_tokens_map.json": {"bos_token": "<s>", "eos_token": {"content": "[/INST]"}},
            "added_tokens.json": {"<b>": tokenizer.convert_tokens_to_ids("<b>")},
            "generation_config.json": {"eos_token_id": [1, ROWS - 1], "pad_token_id": 0},
        }.items():
            (directory / file).write_text(json.dumps(value), encoding="utf-8")
    return found


FILES = (
    *("config.json", "config.json", "tokenizer_config.json", "tokenizer_config.json"),
    *("tokenizer.json", "tokenizer.json", "generation_config.json", "special_tokens_map.json"),
    *("config.json", "added_tokens.json", "model.safetensors.index.json"),
)
FUZZ = settings(
    max_examples=EXAMPLES // 3,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NEAR = (ROWS - 2, ROWS - 1, ROWS, ROWS + 1)


def _spec(name: str, *, chat: bool) -> BuildSpec:
    labels = () if name == "classifier" else LABELS
    prompt = tiny.PROMPT if labels else None
    return BuildSpec(
        model=str(checkpoints()[name]), labels=labels, prompt=prompt, chat=chat and bool(labels)
    )


@st.composite
def changes(draw: st.DrawFn) -> tuple[BuildSpec, str, Any]:
    """A spec of a checkpoint, the name of one of its files, and the file's other contents."""
    name = draw(st.sampled_from(sorted(checkpoints())))
    there = [it for it in FILES if (checkpoints()[name] / it).is_file()]
    file = draw(st.sampled_from(there))
    valid = json.loads((checkpoints()[name] / file).read_text(encoding="utf-8"))
    return _spec(name, chat=draw(st.booleans())), file, draw(mutated(valid, values(NEAR)))


def check_plan(planned: Plan) -> None:
    """Every token that a plan has is one that the embedding has a row for."""
    rows = range(planned.checkpoint.config.vocab_size)
    prompt = planned.prompt
    tokens = (*prompt.prefix_ids, *prompt.suffix_ids, planned.tokenizer.pad_token_id)
    assert all(token in rows for token in tokens)
    assert len(set(planned.labels)) == len(planned.labels) >= 2
    assert planned.verbalizer is None or all(token in rows for token in planned.rows)
    assert planned.limit >= 1
    reader = Tokenizer.from_str(json.dumps(planned.text_tokenizer, allow_nan=False))
    ids = reader.encode("a <b> film</s>\n\ud7ff é 😀", add_special_tokens=False).ids
    assert all(token in rows for token in ids)


def try_change(spec: BuildSpec, file: str, value: Any) -> bool:
    """Whether a plan is made of a checkpoint with another file; the file is put back."""
    path = Path(spec.model) / file
    before = path.read_bytes()
    path.write_text(json.dumps(value), encoding="utf-8")
    try:
        planned = plan(spec)
        sizes = inspect_plan(planned)
    except TrimexportError as refusal:
        check_said(refusal)
        return False
    finally:
        path.write_bytes(before)
    check_plan(planned)
    assert min(part.before for part in sizes.parts) >= 0 < sizes.bytes_after
    return True


@pytest.fixture
def no_hang() -> Iterator[Callable[[], None]]:
    """Ends the test with a traceback if it is not called again within a minute."""

    def hang(number: int, frame: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hang)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, 60) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_checkpoints(no_hang: Callable[[], None]) -> None:
    for name, directory in checkpoints().items():
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        for chat in (False, True):
            assert try_change(_spec(name, chat=chat), "config.json", config)

    @FUZZ
    @given(changes())
    def tried(change: tuple[BuildSpec, str, Any]) -> None:
        no_hang()
        try_change(*change)

    tried()


def _toml(value: Any) -> str:
    """A value as TOML writes it; null, which it lacks, is no TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value)


def _recipe() -> dict[str, Any]:
    return {
        "model": str(checkpoints()["gemma"]),
        "labels": list(LABELS),
        "prompt": tiny.PROMPT,
        "verbalizers": {"positive": ["positive"], "World": "World"},
        "precision": ["int8", "fp32"],
        "tensorrt": ["fp16"],
        "max_tokens": 100,
        "truncate": "start",
        "notice": "Terms apply.",
        "chat": True,
        "tokenizer": str(checkpoints()["gemma"] / "tokenizer.json"),
        "seed": 0,
    }


def try_recipe(path: Path, value: Any) -> bool:
    """Whether a plan is made of a recipe with this value. No hub is asked for another model."""
    lines = [f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()]
    path.write_bytes("\n".join(lines).encode(errors="surrogatepass"))
    try:
        spec = read_recipe(path)
        if spec.model != _recipe()["model"] or spec.adapter is not None:
            return False
        check_plan(plan(spec))
    except TrimexportError as refusal:
        check_said(refusal)
        return False
    return True


def test_recipes(no_hang: Callable[[], None], tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    assert try_recipe(path, {**_recipe(), "chat": False})

    @FUZZ
    @given(mutated(_recipe(), values((99, 100, 127, 128, 129))))
    def tried(value: Any) -> None:
        no_hang()
        try_recipe(path, value)

    tried()
