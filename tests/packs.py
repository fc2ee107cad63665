"""Backbones of tiny models and packs of their tasks, each made once a run. Shared: copy them to
change them."""

from __future__ import annotations

import functools
import shutil
from dataclasses import replace
from pathlib import Path

from transformers import Gemma2Config, Gemma2ForCausalLM

from models import GEMMA_MINI, harden
from tiny import PAIR, PROMPT, TEXTS, tiny_config, tiny_model, tiny_root
from trimexport import BuildSpec, QuestionSpec, Texts
from trimexport.bundle.pack_file import Arrays
from trimexport.packs.backbone import build_backbone
from trimexport.packs.pack import pack

SENTIMENT = BuildSpec(model=str(tiny_model()), labels=("positive", "negative"), prompt=PROMPT)
TASKS = {
    "sentiment": SENTIMENT,
    "odds": replace(
        SENTIMENT,
        verbalizers={"positive": ("good", "great")},
        score="log-odds",
        score_scale=0.5,
        score_shift=-1.5,
    ),
    "bare": replace(SENTIMENT, prompt="{text}"),
    "whole": replace(SENTIMENT, labels=("very positive", "very negative", "quite so")),
    "pair": replace(SENTIMENT, labels=("yes", "no"), prompt=PAIR),
    "asked": replace(
        SENTIMENT,
        prompt="Review: {text}\n{question}\nAnswer:",
        questions=(
            QuestionSpec("mood", "How is it?"),
            QuestionSpec("kind", "What is it?", ("very positive", "very negative", "quite so")),
        ),
    ),
    "one": replace(
        SENTIMENT,
        prompt="Review: {text}\n{question}\nAnswer:",
        questions=(QuestionSpec("mood", "How is it?"),),
    ),
}
"""Tasks of the tiny model: words and a score, an empty prefix and suffix, labels that are read
whole, two fields, two questions and a single one."""


@functools.cache
def tiny_backbone() -> Path:
    """The backbone of the tiny Gemma, in int8 and float32."""
    spec = BuildSpec(model=str(tiny_model()), precision=("int8", "fp32"))
    output = tiny_root() / "backbone"
    build_backbone(spec, output)
    return output


CAPPED = replace(
    SENTIMENT,
    model=str(tiny_root() / "capped-windows"),
    labels=("positive", "negative", "neutral"),
)
"""A task of a tiny Gemma 2."""


@functools.cache
def capped_backbone() -> Path:
    """The backbone of a tiny Gemma 2 in float32: scores and logits are capped, and its first layer
    sees 12 positions."""
    options = {
        **tiny_config(num_key_value_heads=2, num_attention_heads=4).to_dict(),
        "architectures": ["Gemma2ForCausalLM"],
        "final_logit_softcapping": 4.0,
        "attn_logit_softcapping": 20.0,
        "sliding_window": 12,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    model = harden(Gemma2ForCausalLM(Gemma2Config(**options)), seed=12)
    model.save_pretrained(CAPPED.model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(GEMMA_MINI / name, Path(CAPPED.model) / name)
    output = tiny_root() / "capped-backbone"
    build_backbone(BuildSpec(model=CAPPED.model, precision=("fp32",)), output)
    return output


def without_first(arrays: Arrays) -> Arrays:
    """A pack's arrays whose prefix lacks its first position, all else being equal."""
    ends = {"prefix_key": (..., slice(1, None)), "prefix_bias": slice(1, None)}
    ends["prefix_value"] = (slice(None), slice(None), slice(1, None))
    return {name: it[ends.get(name.partition(".")[0], ...)] for name, it in arrays.items()}


@functools.cache
def tiny_pack(task: str) -> Path:
    """The pack of one of `TASKS`."""
    output = tiny_root() / "tasks" / f"{task}.pack"
    sample = Texts(TEXTS) if task != "pair" else None
    # A random model has no margins by which int8 could be judged.
    return pack(tiny_backbone(), TASKS[task], output, sample=sample, keep=("int8",)).path
