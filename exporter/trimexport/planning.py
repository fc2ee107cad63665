"""Resolve a spec: every name in it becomes what it stands for, before any weight is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from trimexport_runtime.bundle import Score, TextLimit
from trimexport_runtime.tokenize import TextEncoder

from .errors import SpecError
from .prompt.chat import wrap_in_chat
from .prompt.few_shot import Shot, choose_shots, refuse_control, write_shots
from .prompt.fine_tuned import (
    classifier_labels,
    classifier_score,
    padding_notes,
    without_padding,
)
from .prompt.label_trie import Trie
from .prompt.logit_score import check_saved_tokens, with_saved_score
from .prompt.template import PromptIds, PromptTemplate, parse_template, tokenise_prompt
from .prompt.tokenizer import SourceTokenizer, load_tokenizer, text_tokenizer
from .prompt.tokenizer_choice import check_known, known_tokens, tokenizer_place
from .prompt.verbalizer import Verbalizer, check_labels, make_verbalizer
from .source.adapter import merge_adapter
from .source.checkpoint import Checkpoint, open_checkpoint, read_config
from .source.families import family_of, is_classifier, notice_for
from .source.hub import locate_adapter, locate_config, locate_model
from .source.prompts_file import notice_of, prompt_for
from .spec import BuildSpec


@dataclass(frozen=True)
class Setting:
    """What a spec asks of which model, before the tokens of its labels are looked for.

    `tokenizer` is without the tokens that the model does not know, which `tokenizer_notes` tells
    the user of. `limit` is how many tokens a text may have, `text_tokenizer` the bundle's
    tokenizer.json.
    """

    spec: BuildSpec
    checkpoint: Checkpoint
    tokenizer: SourceTokenizer
    prompt: PromptIds
    limit: int
    text_tokenizer: Mapping[str, Any]
    tokenizer_notes: tuple[str, ...]


@dataclass(frozen=True)
class Plan(Setting):
    """A setting with the tokens of its labels: what the bundle will hold, before any weight.

    `verbalizer` is None for a fine-tuned classifier, whose output layer has a row per label.
    `limit` leaves room for labels that are read whole. `score` is what the graph returns. `notice`
    is the terms that the bundle has to carry.
    """

    labels: tuple[str, ...]
    verbalizer: Verbalizer | None
    score: Score
    notice: str | None

    @property
    def rows(self) -> tuple[int, ...]:
        """The rows of the output layer that are kept, label by label."""
        if self.verbalizer is None:
            return tuple(range(len(self.labels)))
        return self.verbalizer.token_ids

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """How many of `rows`, or of the trie's sequences, belong to each label."""
        return (1,) * len(self.labels) if self.verbalizer is None else self.verbalizer.group_sizes

    @property
    def outputs(self) -> int:
        """How many logits the graph returns for each text."""
        return 1 if self.score.is_single else len(self.labels)

    @property
    def trie(self) -> Trie | None:
        """The trie of the labels' tokens, where their first tokens do not tell the labels apart."""
        return None if self.verbalizer is None else self.verbalizer.trie

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that tell the user of choices made."""
        notes = (*_adapter_notes(self.checkpoint), *self.tokenizer_notes)
        if self.verbalizer is None:
            suffix_ids = self.prompt.suffix_ids
            return (*notes, *padding_notes(self.checkpoint, self.tokenizer, suffix_ids))
        return (*notes, *self.verbalizer.notes)


def plan(spec: BuildSpec) -> Plan:
    """Resolve a spec: find the model, tokenise the prompt, find the label tokens.

    Raises:
        SpecError: labels, prompt or limit that cannot be built.
        CheckpointError: a model or an adapter that cannot be read or is not supported.
    """
    spec, saved = with_saved_score(spec)
    setting = set_up(spec)
    checkpoint, prompt = setting.checkpoint, setting.prompt
    verbalizer = None
    if checkpoint.is_classifier:
        score = classifier_score(spec, checkpoint)
        labels = classifier_labels(spec, checkpoint)
    else:
        score = Score(spec.score, spec.score_scale, spec.score_shift)
        labels, ends = spec.labels, checkpoint.end_ids
        verbalizer = make_verbalizer(
            labels, spec.verbalizers, prompt.template, setting.tokenizer, ends, spec.score
        )
        if saved is not None:
            check_saved_tokens(verbalizer, saved)
    limit = _text_limit(spec, checkpoint, prompt, verbalizer)
    return Plan(
        **vars(replace(setting, limit=limit)),
        labels=labels,
        verbalizer=verbalizer,
        score=score,
        notice=_notice(spec, checkpoint),
    )


def _adapter_notes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """A line that warns of an adapter that fits the checkpoint by its shapes, but names another
    model."""
    base = None if checkpoint.adapter is None else checkpoint.adapter.base
    if base is None or Path(base).name == Path(checkpoint.model).resolve().name:
        return ()
    return (
        f"the adapter says that it was trained on {base}, the checkpoint is {checkpoint.model}; "
        "where these are not the same weights, name the right one with --model",
    )


def set_up(spec: BuildSpec) -> Setting:
    """Resolve all of a spec but its labels' words: find the model, tokenise the prompt.

    Raises:
        SpecError, CheckpointError: as `plan`.
    """
    template = parse_template(_prompt(spec, locate_config(spec.model, spec.revision)))
    shots = choose_shots(spec)
    adapter = None if spec.adapter is None else locate_adapter(spec.adapter)
    directory = locate_model(spec.model, spec.revision)
    checkpoint = open_checkpoint(directory, spec.model, spec.revision)
    if adapter is not None and spec.adapter is not None:
        checkpoint = merge_adapter(checkpoint, adapter, spec.adapter)
    place = tokenizer_place(spec.tokenizer, checkpoint)
    whole = load_tokenizer(place)
    tokenizer, tokenizer_notes = known_tokens(whole, place, checkpoint)
    bare = wrap_in_chat(template, spec.system, place) if spec.chat else template
    prompt = _tokenise(bare, whole, checkpoint)
    control = _control(prompt)
    if shots:
        refuse_control(shots, tokenizer, control)
        shown = _tokenise(_shown(template, spec, place, shots), tokenizer, checkpoint)
        prompt = replace(shown, examples=tuple(shot.text for shot in shots))
    return Setting(
        spec=spec,
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        prompt=prompt,
        limit=_text_limit(spec, checkpoint, prompt),
        text_tokenizer=text_tokenizer(
            tokenizer, prompt.text_lead, is_dummy=prompt.lead_is_dummy, control=control
        ),
        tokenizer_notes=tokenizer_notes,
    )


def whole_ids(setting: Setting, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """The ids of each text with the prompt's around them. The text is tokenised and cut to the
    limit as in the bundle."""
    tokenizer = Tokenizer.from_str(json.dumps(setting.text_tokenizer, allow_nan=False))
    limit = TextLimit(setting.limit, setting.spec.truncate)
    encoder, prompt = TextEncoder(tokenizer, limit, allow_empty=True), setting.prompt
    return [
        (*prompt.prefix_ids, *encoder.encode(text).ids.tolist(), *prompt.suffix_ids)
        for text in texts
    ]


def _prompt(spec: BuildSpec, directory: Path) -> str:
    """The spec's prompt, or the default one: the text alone for a fine-tuned classifier, and what
    a language model's card says for the labels.

    Unsupported models and missing labels are refused here, before the weights of a hub id are
    downloaded.
    """
    architecture, _ = family_of(read_config(directory), spec.model)
    if is_classifier(architecture):
        if spec.chat:
            raise SpecError(
                f"{spec.model} is a fine-tuned classifier, which was not trained to answer in a "
                "chat; drop --chat, and if its texts were turns of one, write them into the prompt"
            )
        if spec.few_shot is not None:
            raise SpecError(
                f"{spec.model} is a fine-tuned classifier, which reads a text alone and learns "
                "nothing from examples before it; drop --few-shot and --shots"
            )
        return "{text}" if spec.prompt is None else spec.prompt
    if not spec.labels:
        raise SpecError(
            f"a {architecture} has no labels of its own; name them with --labels positive,negative"
        )
    check_labels(spec.labels, spec.score)
    return prompt_for(directory, spec.labels) if spec.prompt is None else spec.prompt


def _shown(
    template: PromptTemplate, spec: BuildSpec, tokenizer: Path, shots: Sequence[Shot]
) -> PromptTemplate:
    """The template with examples before it, which are turns of a chat where the template is one."""
    if spec.chat:
        return wrap_in_chat(template, spec.system, tokenizer, shots)
    return write_shots(template, shots)


def _tokenise(
    template: PromptTemplate, tokenizer: SourceTokenizer, checkpoint: Checkpoint
) -> PromptIds:
    """The ids of the template. Those of a fine-tuned classifier include end tokens, because it was
    trained on whole strings, and no padding, because it answers at the last token before that."""
    classifier = checkpoint.is_classifier
    prompt = tokenise_prompt(template, tokenizer, ended=classifier)
    check_known(prompt, tokenizer, checkpoint)
    if not classifier:
        return prompt
    kept = without_padding(prompt.suffix_ids, checkpoint.config.pad_token_id)
    return replace(prompt, suffix_ids=kept)


def _control(prompt: PromptIds) -> frozenset[int]:
    """The tokens that a text must not contain, besides those marked special: all that a chat
    template writes, for they steer the model, marked or not (Qwen3's `</think>` is not marked).

    Requires a prompt without examples, whose words are ordinary ones.
    """
    return frozenset((*prompt.prefix_ids, *prompt.suffix_ids) if prompt.template.rendered else ())


def _text_limit(
    spec: BuildSpec,
    checkpoint: Checkpoint,
    prompt: PromptIds,
    verbalizer: Verbalizer | None = None,
) -> int:
    """How many tokens a text may have beside the prompt and labels that are read whole."""
    total = min(checkpoint.context, spec.max_tokens or checkpoint.context)
    trie = None if verbalizer is None else verbalizer.trie
    around = len(prompt.prefix_ids) + len(prompt.suffix_ids) + (max(trie.depths) if trie else 0)
    if total - around < 1:
        raise SpecError(
            f"the prompt takes {around} of {total} tokens and leaves none for a text; shorten it"
            + (" or raise --max-tokens" if total < checkpoint.context else "")
        )
    return total - around


def _notice(spec: BuildSpec, checkpoint: Checkpoint) -> str | None:
    """The notices of the spec, of the checkpoint's card and of the model's family, as one text;
    None where there is none."""
    known = notice_for(checkpoint.architecture, checkpoint.config.vocab_size)
    notices = dict.fromkeys((spec.notice, notice_of(checkpoint.directory), known))
    return " ".join(notice.rstrip(".") + "." for notice in notices if notice) or None
