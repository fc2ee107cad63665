"""The labels, the score and the prompt of a reranker that sentence-transformers has saved.

Its chat template takes a pair as two messages, whose roles are `query` and `document`;
`sentence_bert_config.json` has the settings with which it is rendered.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimexport.errors import SpecError
from trimexport.source.hub import local_directory, locate_config, locate_model
from trimexport.source.logit_score import MODULES, LogitScore, read_logit_score, score_folder
from trimexport.spec import LOG_ODDS, LOGIT, SOFTMAX, BuildSpec
from trimexport_runtime.bundle import Field

from .template import TemplateField, literal_template, places_of
from .tokenizer import load_tokenizer, transformers_tokenizer
from .verbalizer import Verbalizer

SETTINGS = "sentence_bert_config.json"
PAIR = (TemplateField("query"), TemplateField("document"))
_TOKENISES = {"padding", "truncation", "max_length", "return_tensors", "restore_suffix"}


def with_saved_score(spec: BuildSpec) -> tuple[BuildSpec, LogitScore | None]:
    """The spec with the labels of the checkpoint's own score and, where it names no prompt, that of
    its chat template; and that score. The spec as it is, and None, where it names labels or the
    checkpoint has no such score.

    Raises:
        CheckpointError, HubError: the model, its score or its tokenizer cannot be read.
        SpecError: the vocabulary lacks one of the score's tokens.
    """
    if spec.labels:
        return spec, None
    directory = _locate(spec.model, spec.revision)
    if directory is None or (found := read_logit_score(directory)) is None:
        return spec, None
    place = Path(spec.tokenizer or directory)
    tokenizer = load_tokenizer(place).whole
    for token_id in found.token_ids:
        if tokenizer.id_to_token(token_id) is None:
            raise SpecError(
                f"{found.file} names the token {token_id}, and the vocabulary ends before it; name "
                "the labels with --labels, or the tokenizer with --tokenizer"
            )
    words = [tokenizer.decode([token_id]) for token_id in found.token_ids]
    labels = tuple(word.strip() for word in words)
    kind = LOG_ODDS if len(labels) == 2 else LOGIT
    score = kind if spec.score == SOFTMAX else spec.score
    spec = replace(spec, labels=labels, score=score)
    if spec.prompt is None and (prompt := _saved_prompt(directory, place)) is not None:
        lead = words[0][: len(words[0]) - len(words[0].lstrip(" "))]
        spec = replace(
            spec, prompt=prompt, label_lead=lead if spec.label_lead is None else spec.label_lead
        )
    return spec, found


def _locate(model: str, revision: str | None) -> Path | None:
    """The directory of a model that has such a score, its tokenizer and the score's configuration
    included; None where it has none. Of another model its configuration alone is downloaded.

    Raises:
        CheckpointError, HubError: the model cannot be located, or its modules not be read.
    """
    directory = locate_config(model, revision)
    folder = score_folder(directory / MODULES)
    if folder is None or local_directory(model) is not None:
        return None if folder is None else directory
    return locate_model(model, revision, f"{folder}/config.json")


def fields_of(spec: BuildSpec) -> tuple[Field, ...]:
    """The fields of the prompt that a spec is built with, which may be the checkpoint's own.

    Raises: as `with_saved_score`, and SpecError for a prompt that is none.
    """
    if spec.prompt is None:
        spec, _ = with_saved_score(spec)
    return places_of(spec.prompt)


def _saved_prompt(directory: Path, place: Path) -> str | None:
    """The prompt that the chat template of the tokenizer in `place` writes of a query and a
    document; None where there is no template, or it does not write them once and in this order."""
    tokenizer = transformers_tokenizer(place)
    if not tokenizer.chat_template:
        return None
    marks = [f"\ue000{field.name}\ue001" for field in PAIR]
    turns = [{"role": field.name, "content": mark} for field, mark in zip(PAIR, marks, strict=True)]
    try:
        settings = _template_settings(directory)
        rendering = str(tokenizer.apply_chat_template(turns, tokenize=False, **settings))
    except Exception:  # a template is a program, and another one has other roles
        return None
    parts = re.split("|".join(marks), rendering)
    if len(parts) != 3 or marks[0] not in rendering.partition(marks[1])[0]:
        return None
    start = parts[0].removeprefix(tokenizer.bos_token or "")  # which the tokenizer writes itself
    return literal_template((start, *parts[1:]), PAIR).source


def _template_settings(directory: Path) -> dict[str, Any]:
    """The settings with which the model's chat template is rendered."""
    try:
        raw = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    given = (raw.get("processing_kwargs") or {}).get("chat_template") or {}
    return {name: value for name, value in given.items() if name not in _TOKENISES}


def check_saved_tokens(verbalizer: Verbalizer, saved: LogitScore) -> None:
    """Raise SpecError if behind this prompt the labels are other tokens than the score's."""
    for label, words, expected in zip(
        verbalizer.labels, verbalizer.words, saved.token_ids, strict=True
    ):
        found = words[0].token_ids[0]
        if found != expected:
            raise SpecError(
                f'behind this prompt the label "{label}" is the token {found}, and {saved.file} '
                f"names {expected}; end the prompt as the model's chat template does, or name the "
                "labels with --labels"
            )
