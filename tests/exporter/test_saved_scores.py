"""Rerankers that sentence-transformers has saved: their labels and their score."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tiny
from trimexport import BuildSpec, CheckpointError, SpecError, TrimexportError, plan
from trimexport.cli import main
from trimexport.cli.spec_from_options import make_spec
from trimexport.prompt.tokenizer import load_tokenizer
from trimexport.source.logit_score import read_logit_score
from trimexport_runtime.score import Score

TYPE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
Save = Callable[..., Path]


@pytest.fixture
def saved(tiny_copy: Path) -> Save:
    """The tiny model with the files that `CrossEncoder.save_pretrained` writes besides."""

    def save(config: Any, folder: str = "1_LogitScore") -> Path:
        modules = [
            {"idx": 0, "name": "0", "path": "", "type": TRANSFORMER},
            {"idx": 1, "name": "1", "path": folder, "type": TYPE},
        ]
        (tiny_copy / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
        if config is not None:
            (tiny_copy / "1_LogitScore").mkdir(exist_ok=True)
            file = tiny_copy / "1_LogitScore" / "config.json"
            file.write_text(json.dumps(config), encoding="utf-8")
        return tiny_copy

    return save


def ids(*tokens: str) -> dict[str, int | None]:
    vocabulary = load_tokenizer(tiny.tiny_model()).whole
    found = [vocabulary.token_to_id(token) for token in tokens]
    assert None not in found
    return dict(zip(("true_token_id", "false_token_id"), (*found, None), strict=False))


def planned(directory: Path, **spec: Any) -> Any:
    return plan(BuildSpec(model=str(directory), prompt=tiny.PROMPT, **spec))


def test_two_tokens_are_log_odds(saved: Save) -> None:
    found = planned(saved(ids("▁positive", "▁negative")), score_shift=0.0)
    assert found.labels == ("positive", "negative")
    assert found.score == Score("log-odds")
    assert found.outputs == 1


def test_one_token_is_a_logit(saved: Save) -> None:
    found = planned(saved(ids("▁positive")))
    assert (found.labels, found.score) == (("positive",), Score("logit"))


def test_labels_that_are_given_are_taken(saved: Save) -> None:
    directory = saved(ids("▁positive", "▁negative"))
    found = planned(directory, labels=("good", "bad"))
    assert (found.labels, found.score) == (("good", "bad"), Score())


def test_the_command_line_asks_for_no_labels(saved: Save) -> None:
    directory = saved(ids("▁positive", "▁negative"))
    options = {"model": str(directory), "prompt": tiny.PROMPT}
    assert make_spec(options, print).labels == ()


TEMPLATE = (
    "{% for m in messages if m.role == 'query' %}Query: {{ m.content }}\n{% endfor %}"
    "{% for m in messages if m.role == 'document' %}Document: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)


def with_chat(directory: Path) -> Path:
    """The checkpoint with a chat template of queries and documents, and settings for it."""
    (directory / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    settings = {"chat_template": {"add_generation_prompt": True, "max_length": 64}}
    file = directory / "sentence_bert_config.json"
    file.write_text(json.dumps({"processing_kwargs": settings}), encoding="utf-8")
    return directory


@pytest.mark.parametrize("option", ["--texts", "--calibration"])
def test_files_are_read_by_the_fields_of_the_saved_prompt(
    saved: Save, tmp_path: Path, option: str
) -> None:
    directory = with_chat(saved(ids("▁positive", "▁negative")))
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"query": "who", "text": "she"}\n', encoding="utf-8")
    command = ["build", "--model", str(directory), option, str(file), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert f'{file}, line 1: the object has no key "document"' in done.stderr


def test_its_chat_template_is_the_prompt(saved: Save) -> None:
    """With the settings that sentence-transformers has saved, and the tokens of the score."""
    directory = with_chat(saved(ids("▁positive", "▁negative")))
    found = plan(BuildSpec(model=str(directory)))
    assert found.prompt.template.source == "Query: {query}\nDocument: {document}\nAnswer:"
    assert [word.tokens for words in found.verbalizer.words for word in words] == [
        ("▁positive",),
        ("▁negative",),
    ]
    assert found.prompt.prefix_ids.count(2) == 1, "bos is written once"
    named = plan(BuildSpec(model=str(directory), prompt=tiny.PROMPT))
    assert named.prompt.template.source == tiny.PROMPT


@pytest.mark.parametrize("template", ["{{ messages[0].content }}", "{{ raise_exception('no') }}"])
def test_a_chat_template_without_the_roles_is_no_prompt(saved: Save, template: str) -> None:
    directory = saved(ids("▁positive", "▁negative"))
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(SpecError, match="no prompt is known for the labels positive,negative"):
        plan(BuildSpec(model=str(directory)))


@pytest.mark.parametrize(
    ("config", "folder", "message"),
    [
        (None, "1_LogitScore", "is missing; download it too, or name the labels with --labels"),
        ({"true_token_id": "yes"}, "1_LogitScore", "has true_token_id 'yes' and false_token_id"),
        ({"true_token_id": 9, "false_token_id": True}, "1_LogitScore", "which are no tokens"),
        ({"true_token_id": 10**6}, "1_LogitScore", "names the token 1000000, and the vocabulary"),
        ({"true_token_id": 9}, "../outside", "names the folder ../outside, which is not inside"),
    ],
)
def test_a_score_that_cannot_be_read(saved: Save, config: Any, folder: str, message: str) -> None:
    with pytest.raises(TrimexportError, match=re.escape(message)):
        planned(saved(config, folder))


def test_modules_that_are_no_json(tiny_copy: Path) -> None:
    (tiny_copy / "modules.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"modules\.json cannot be read: .*; download"):
        read_logit_score(tiny_copy)


def test_another_token_behind_this_prompt(saved: Save) -> None:
    """The score's token is the one without a space before it; this prompt's answer has one."""
    with pytest.raises(SpecError, match="end the prompt as the model's chat template does"):
        planned(saved(ids("a", "▁negative")))


def test_a_directory_of_another_kind(tiny_model: Path, saved: Save) -> None:
    assert read_logit_score(tiny_model) is None
    assert read_logit_score(tiny_model / "config.json") is None
