"""The checkpoint, the texts and the prompts that ship."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from trimexport import CheckpointError, SpecError
from trimexport.prompt.template import parse_template
from trimexport.source.prompts_file import prompt_for
from trimexport.source.shipped import sample_texts, shipped_checkpoint


def test_the_checkpoint_is_found() -> None:
    names = {path.name for path in shipped_checkpoint().iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "prompts.toml"} <= names


def test_every_prompt_is_one() -> None:
    text = (shipped_checkpoint() / "prompts.toml").read_text(encoding="utf-8")
    prompts = tomllib.loads(text)["prompt"]
    assert len(prompts) == 2
    for prompt in prompts:
        parse_template(prompt["template"])
        assert prompt_for(shipped_checkpoint(), prompt["labels"]) == prompt["template"]


def test_the_order_of_the_labels_does_not_matter() -> None:
    expected = "Review: {text}\nSentiment:"
    for labels in (("positive", "negative"), ("negative", "positive")):
        assert prompt_for(shipped_checkpoint(), labels) == expected


@pytest.mark.parametrize("labels", [("good", "bad"), ("positive", "negative", "neutral")])
def test_other_labels_have_no_prompt(labels: tuple[str, ...]) -> None:
    known = "the model comes with prompts for: positive,negative  World,Sports,Business,Sci/Tech"
    with pytest.raises(SpecError, match=re.escape(known)) as caught:
        prompt_for(shipped_checkpoint(), labels)
    assert str(caught.value).startswith(f"no prompt is known for the labels {','.join(labels)};")
    assert "--prompt" in str(caught.value)


def test_a_model_without_a_card_has_no_prompt(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no prompt is known for the labels a,b\. Give one"):
        prompt_for(tmp_path, ("a", "b"))


@pytest.mark.parametrize(
    "text", ["prompt =", "prompt = 3", "[[prompt]]\nlabels = 3", "[prompt]\na = 1"]
)
def test_a_card_that_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "prompts.toml").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"prompts\.toml is not a table of prompts"):
        prompt_for(tmp_path, ("a", "b"))


def test_there_are_texts_of_many_kinds() -> None:
    texts = sample_texts()
    assert len(texts) >= 16
    assert len(set(texts)) == len(texts)
    assert all(text.strip() for text in texts)
