"""Resolve a spec: every name in it becomes what it stands for, before any weight is read."""

from __future__ import annotations

import functools
import itertools
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
from .prompt.chosen_prompt import chosen_prompt
from .prompt.few_shot import Shot, choose_shots, refuse_control, write_shots
from .prompt.field_checks import check_fields
from .prompt.fine_tuned import (
    classifier_labels,
    classifier_score,
    padding_notes,
    tokenise_for,
)
from .prompt.label_trie import Trie
from .prompt.logit_score import check_saved_tokens, with_saved_score
from .prompt.pair_processor import fixed_ids, processor_for
from .prompt.prompt_ids import PromptIds, control_tokens
from .prompt.question_tree import QuestionTree
from .prompt.questions import (
    AskedQuestion,
    ask,
    asked_questions,
    flat_labels,
    question_notes,
    question_words,
    shared_prompt,
    tree_of,
)
from .prompt.template import PromptTemplate, parse_template, without_suffix
from .prompt.tokenizer import SourceTokenizer, load_tokenizer, text_tokenizer
from .prompt.tokenizer_choice import known_tokens, tokenizer_place
from .prompt.verbalizer import Verbalizer, make_verbalizer
from .source.adapter import merge_adapter
from .source.checkpoint import Checkpoint, open_checkpoint
from .source.depth import cut_layers
from .source.hub import locate_adapter, locate_config, locate_model
from .source.notices import notices
from .spec import MEAN, BuildSpec, parse_truncate


@dataclass(frozen=True)
class Setting:
    """What a spec asks of which model, before the tokens of its labels are looked for.

    `tokenizer` is without the tokens that the model does not know, which `tokenizer_notes` tells
    the user of. `limit` is how many tokens a text may have, or all fields of a prompt and what
    stands between them; `text_tokenizer` the bundle's tokenizer.json. Where several questions are
    `asked`, the suffix of `prompt` is what all of theirs begin with.
    """

    spec: BuildSpec
    checkpoint: Checkpoint
    tokenizer: SourceTokenizer
    prompt: PromptIds
    limit: int
    text_tokenizer: Mapping[str, Any]
    tokenizer_notes: tuple[str, ...]
    asked: tuple[AskedQuestion, ...]

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

    `labels` are those of all questions, by names that say whose they are. `verbalizers` are of each
    question, of the only one where there are none, and none for a fine-tuned classifier, whose
    output layer has a row per label. `limit` leaves room for what is in the tree behind a text.
    `score` is what the graph returns. `notice` is the terms that the bundle has to carry.
    """

    labels: tuple[str, ...]
    verbalizers: tuple[Verbalizer, ...]
    score: Score
    notice: str | None

    @property
    def verbalizer(self) -> Verbalizer | None:
        """The words of the labels, where there is one question alone and no fine-tuned classifier
        answers it."""
        return None if self.asked or not self.verbalizers else self.verbalizers[0]

    @functools.cached_property
    def questions(self) -> QuestionTree | None:
        """The tree of several questions."""
        return tree_of(self.asked, self.verbalizers) if self.asked else None

    @property
    def trie(self) -> Trie | None:
        """The tree behind a text: of several questions, or of the labels' tokens where their first
        ones do not tell the labels apart."""
        if self.questions is not None:
            return self.questions.trie
        return None if self.verbalizer is None else self.verbalizer.trie

    @property
    def rows(self) -> tuple[int, ...]:
        """The rows of the output layer that are kept, label by label, or branch by branch of the
        tree."""
        if not self.verbalizers:
            return tuple(range(len(self.labels)))
        if self.trie is not None:
            return tuple(itertools.chain(*self.trie.rows))
        return self.verbalizers[0].token_ids

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """How many of `rows`, or of the tree's sequences, belong to each label."""
        if not self.verbalizers:
            return (1,) * len(self.labels)
        return tuple(itertools.chain(*(each.group_sizes for each in self.verbalizers)))

    @property
    def mean_behind(self) -> int | None:
        """Behind how many ids of a whole prompt the text's own begin, whose hidden states' mean the
        head reads; None where it reads the last token's."""
        return len(self.prompt.prefix_ids) if self.spec.pool == MEAN else None

    @property
    def outputs(self) -> int:
        """How many logits the graph returns for each text."""
        return 1 if self.score.is_single else len(self.labels)

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that tell the user of choices made."""
        notes = (*_adapter_notes(self.checkpoint), *self.tokenizer_notes)
        if not self.verbalizers:
            suffix_ids = self.prompt.suffix_ids
            return (*notes, *padding_notes(self.checkpoint, self.tokenizer, suffix_ids))
        if self.asked:
            return (*notes, *question_notes(self.asked, self.verbalizers))
        return (*notes, *self.verbalizers[0].notes)


def plan(spec: BuildSpec) -> Plan:
    """Resolve a spec: find the model, tokenise the prompt, find the label tokens.

    Raises:
        SpecError: labels, prompt, questions or limit that cannot be built.
        CheckpointError: a model or an adapter that cannot be read or is not supported.
    """
    spec, saved = with_saved_score(spec)
    setting = set_up(spec)
    checkpoint = setting.checkpoint
    verbalizers: tuple[Verbalizer, ...] = ()
    if checkpoint.is_classifier:
        score = classifier_score(spec, checkpoint)
        labels = classifier_labels(spec, checkpoint)
    elif setting.asked:
        score = Score(spec.score)
        verbalizers = question_words(setting.asked, setting.tokenizer, checkpoint.end_ids)
        labels = flat_labels(setting.asked)
    else:
        score = Score(spec.score, spec.score_scale, spec.score_shift)
        labels, ends = spec.labels, checkpoint.end_ids
        template = setting.prompt.template
        verbalizer = make_verbalizer(
            labels, spec.verbalizers, template, setting.tokenizer, ends, spec.score
        )
        verbalizers = (verbalizer,)
        if saved is not None:
            check_saved_tokens(verbalizer, saved)
    planned = Plan(
        **vars(setting),
        labels=labels,
        verbalizers=verbalizers,
        score=score,
        notice=notices(checkpoint, spec.notice),
    )
    if spec.pool == MEAN and planned.trie is not None:
        raise SpecError(
            "labels that begin alike are read behind the text, and a mean is over the text's own "
            f"tokens; give each label a word of its own with --verbalize, or drop --pool {MEAN}"
        )
    return replace(planned, limit=_text_limit(planned, planned.trie))


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
        spec, parse_template(chosen_prompt(spec, locate_config(spec.model, spec.revision)))
    )


def set_up_prompt(spec: BuildSpec, written: PromptTemplate) -> Setting:
    """`set_up` with this prompt, whatever the spec's is."""
    template = replace(written, lead=spec.label_lead)
    check_fields(template, spec)
    shots = choose_shots(spec)
    adapter = None if spec.adapter is None else locate_adapter(spec.adapter)
    directory = locate_model(spec.model, spec.revision)
    checkpoint = open_checkpoint(directory, spec.model, spec.revision)
    if adapter is not None and spec.adapter is not None:
        checkpoint = merge_adapter(checkpoint, adapter, spec.adapter)
    checkpoint = cut_layers(checkpoint, spec.layers)
    if spec.pool == MEAN and checkpoint.is_classifier:
        raise SpecError(
            f"{spec.model} is a fine-tuned classifier, which reads the last token; drop --pool"
        )
    place = tokenizer_place(spec.tokenizer, checkpoint)
    whole = load_tokenizer(place)
    tokenizer, tokenizer_notes = known_tokens(whole, place, checkpoint)
    bare = _shown(template, spec, place, ())
    templates = [ask(bare, question.text) for question in spec.questions] or [bare]
    prompts = [tokenise_for(each, whole, checkpoint) for each in templates]
    prompt = shared_prompt(bare, prompts) if spec.questions else prompts[0]
    control = frozenset.union(*(control_tokens(each, whole) for each in templates))
    if shots:
        refuse_control(shots, tokenizer, control)
        shown = tokenise_for(_shown(template, spec, place, shots), tokenizer, checkpoint)
        prompt = replace(shown, examples=tuple(shot.text for shot in shots))
    definition = text_tokenizer(
        tokenizer, prompt.text_lead, is_dummy=prompt.lead_is_dummy, control=control
    )
    definition["post_processor"] = processor_for(prompt, definition, tokenizer)
    setting = Setting(
        spec=spec,
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        prompt=prompt,
        limit=0,
        text_tokenizer=definition,
        tokenizer_notes=(*tokenizer_notes, *prompt.notes),
        asked=asked_questions(spec, prompts),
    )
    return replace(setting, limit=_text_limit(setting))


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


def _shown(
    template: PromptTemplate, spec: BuildSpec, tokenizer: Path, shots: Sequence[Shot]
) -> PromptTemplate:
    """The template with examples before it, if there are any, which are turns of a chat where the
    template is one; and without what a mean over the text leaves out behind it."""
    if spec.chat:
        shown = wrap_in_chat(template, spec.system, tokenizer, shots)
    else:
        shown = write_shots(template, shots)
    return without_suffix(shown) if spec.pool == MEAN else shown


def _text_limit(setting: Setting, trie: Trie | None = None) -> int:
    """How many tokens a text may have, or all fields and what stands between them, beside the
    prompt and what is in the tree behind it."""
    spec, checkpoint, prompt = setting.spec, setting.checkpoint, setting.prompt
    total = min(checkpoint.context, spec.max_tokens or checkpoint.context)
    deepest = max(trie.depths, default=0) if trie else 0
    around = checkpoint.virtual_tokens + len(prompt.prefix_ids) + len(prompt.suffix_ids) + deepest
    taken = around + len(fixed_ids(prompt, setting.text_tokenizer))
    if total - taken < 1:
        asked = ", with the longest of its questions," if setting.asked else ""
        raise SpecError(
            f"the prompt{asked} takes {taken} of {total} tokens and leaves none for a text; "
            "shorten it" + (" or raise --max-tokens" if total < checkpoint.context else "")
        )
    return total - around
