"""Resolve a spec: every name in it becomes what it stands for, before any weight is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from trimexport_runtime.bundle import Score, TextLimit
from trimexport_runtime.inputs import Input
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
from .prompt.pair_processor import fixed_ids, processor_for
from .prompt.prompt_ids import PromptIds, control_tokens, tokenise_prompt
from .prompt.template import PromptTemplate, parse_template
from .prompt.tokenizer import SourceTokenizer, load_tokenizer, text_tokenizer
from .prompt.tokenizer_choice import check_known, known_tokens, tokenizer_place
from .prompt.verbalizer import Verbalizer, check_labels, make_verbalizer
from .source.adapter import merge_adapter
from .source.checkpoint import Checkpoint, open_checkpoint, read_config
from .source.families import family_of, is_classifier
from .source.hub import locate_adapter, locate_config, locate_model
from .source.notices import notices
from .source.prompts_file import prompt_for
from .spec import BuildSpec, parse_truncate


@dataclass(frozen=True)
class Setting:
    """What a spec asks of which model, before the tokens of its labels are looked for.

    `tokenizer` is without the tokens that the model does not know, which `tokenizer_notes` tells
    the user of. `limit` is how many tokens a text may have, or all fields of a prompt and what
    stands between them; `text_tokenizer` the bundle's tokenizer.json.
    """

    spec: BuildSpec
    checkpoint: Checkpoint
    tokenizer: SourceTokenizer
    prompt: PromptIds
    limit: int
    text_tokenizer: Mapping[str, Any]
    tokenizer_notes: tuple[str, ...]

    @property
    def text_limit(self) -> TextLimit:
        """The limit, and what is cut off a row that is beyond it: an end of the field that is
        named, or of the last that has to be given."""
        name, end = parse_truncate(self.spec.truncate)
        template = self.prompt.template
        several = len(template.fields) > 1
        return TextLimit(self.limit, end, (name or template.required[-1]) if several else None)


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
    limit = _text_limit(spec, checkpoint, prompt, setting.text_tokenizer, verbalizer)
    return Plan(
        **vars(replace(setting, limit=limit)),
        labels=labels,
        verbalizer=verbalizer,
        score=score,
        notice=notices(checkpoint, spec.notice),
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
    return set_up_prompt(
        spec, parse_template(_prompt(spec, locate_config(spec.model, spec.revision)))
    )


def set_up_prompt(spec: BuildSpec, written: PromptTemplate) -> Setting:
    """`set_up` with this prompt, whatever the spec's is."""
    template = replace(written, lead=spec.label_lead)
    _check_fields(template, spec)
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
    control = control_tokens(bare, whole)
    if shots:
        refuse_control(shots, tokenizer, control)
        shown = _tokenise(_shown(template, spec, place, shots), tokenizer, checkpoint)
        prompt = replace(shown, examples=tuple(shot.text for shot in shots))
    definition = text_tokenizer(
        tokenizer, prompt.text_lead, is_dummy=prompt.lead_is_dummy, control=control
    )
    definition["post_processor"] = processor_for(prompt, definition, tokenizer)
    return Setting(
        spec=spec,
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        prompt=prompt,
        limit=_text_limit(spec, checkpoint, prompt, definition),
        text_tokenizer=definition,
        tokenizer_notes=(*tokenizer_notes, *prompt.notes),
    )


def _check_fields(template: PromptTemplate, spec: BuildSpec) -> None:
    """Raise SpecError for what goes with one field alone, and for a field to cut that is none."""
    names = [field.name for field in template.fields]
    if spec.few_shot is not None and len(names) > 1:
        raise SpecError(
            f"--few-shot writes examples of a prompt with one field, and this one has "
            f"{', '.join(names)}; drop it and write the examples into the prompt"
        )
    cut, _ = parse_truncate(spec.truncate)
    if cut is not None and cut not in names:
        raise SpecError(
            f'truncate names "{spec.truncate}", and the prompt has no field "{cut}"; give end, '
            f"start, or one of {', '.join(names)}, with :start behind it to cut its start"
        )


def whole_ids(setting: Setting, texts: Sequence[Input]) -> list[tuple[int, ...]]:
    """The ids of each text, or of each row's texts, with the prompt's around them. They are
    tokenised and cut to the limit as in the bundle."""
    tokenizer = Tokenizer.from_str(json.dumps(setting.text_tokenizer, allow_nan=False))
    prompt = setting.prompt
    encoder = TextEncoder(tokenizer, setting.text_limit, allow_empty=True, fields=prompt.fields)
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


def _text_limit(
    spec: BuildSpec,
    checkpoint: Checkpoint,
    prompt: PromptIds,
    tokenizer: Mapping[str, Any],
    verbalizer: Verbalizer | None = None,
) -> int:
    """How many tokens a text may have, or all fields and what stands between them, beside the
    prompt and labels that are read whole.

    Args:
        tokenizer: the bundle's tokenizer.json.
    """
    total = min(checkpoint.context, spec.max_tokens or checkpoint.context)
    trie = None if verbalizer is None else verbalizer.trie
    around = len(prompt.prefix_ids) + len(prompt.suffix_ids) + (max(trie.depths) if trie else 0)
    taken = around + len(fixed_ids(prompt, tokenizer))
    if total - taken < 1:
        raise SpecError(
            f"the prompt takes {taken} of {total} tokens and leaves none for a text; shorten it"
            + (" or raise --max-tokens" if total < checkpoint.context else "")
        )
    return total - around
