"""The parts of a manifest that a plan decides: source, prompt, labels, questions."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from trimexport.planning import Plan
from trimexport.prompt.tokenizer_choice import tokenizer_sha256
from trimexport.prompt.verbalizer import Verbalizer
from trimexport.records import text_sha256
from trimexport_runtime.bundle import Field, Label, Prompt, Question, Source


def source_of(planned: Plan) -> Source:
    """Where the weights come from."""
    spec, checkpoint = planned.spec, planned.checkpoint
    adapter, tokenizer = checkpoint.adapter, spec.tokenizer
    local = Path(spec.model).exists()
    return Source(
        model=checkpoint.directory.resolve().name if local else spec.model,
        # The hub's cache names a snapshot's directory after its commit.
        revision=None if local else checkpoint.directory.name,
        directory=str(checkpoint.directory.resolve()) if local else None,
        architecture=checkpoint.architecture,
        config_sha256=checkpoint.config_sha256,
        notice=planned.notice,
        adapter=None if adapter is None else adapter.name,
        adapter_sha256=None if adapter is None else adapter.sha256,
        tokenizer=None if tokenizer is None else str(Path(tokenizer).resolve()),
        tokenizer_sha256=None if tokenizer is None else tokenizer_sha256(Path(tokenizer)),
        layers=spec.layers,
    )


def prompt_of(planned: Plan) -> Prompt:
    """What the manifest says of the prompt."""
    fields = planned.prompt.fields
    return Prompt(
        template=planned.prompt.template.source,
        prefix_ids=planned.prompt.prefix_ids,
        suffix_ids=() if planned.asked else planned.prompt.suffix_ids,
        text_lead=planned.prompt.text_lead,
        rendered=planned.prompt.template.rendered,
        examples=tuple(map(text_sha256, planned.prompt.examples)),
        fields=() if fields == (Field("text"),) else fields,
        virtual_tokens=planned.checkpoint.virtual_tokens,
        pool=planned.spec.pool,
    )


def labels_of(planned: Plan) -> tuple[Label, ...]:
    """The labels with their tokens; those of a fine-tuned classifier have none."""
    if not planned.verbalizers:
        return tuple(Label(name, words=(), token_ids=(), tokens=()) for name in planned.labels)
    found = itertools.chain(*map(_labels_of, planned.verbalizers))
    return tuple(
        replace(label, name=name) for label, name in zip(found, planned.labels, strict=True)
    )


def _labels_of(verbalizer: Verbalizer) -> tuple[Label, ...]:
    """The labels of one question with their tokens."""
    whole = verbalizer.sequences or ((),) * len(verbalizer.labels)
    return tuple(
        Label(
            name=name,
            words=tuple(word.word for word in words),
            token_ids=tuple(word.token_ids[0] for word in words),
            tokens=tuple(word.tokens[0] for word in words),
            sequences=sequences,
        )
        for name, words, sequences in zip(verbalizer.labels, verbalizer.words, whole, strict=True)
    )


def questions_of(planned: Plan) -> tuple[Question, ...]:
    """The questions with their labels; none where there is one without a name."""
    if not planned.asked:
        return ()
    return tuple(
        Question(
            name=question.name,
            text=question.text,
            suffix_ids=question.prompt.suffix_ids,
            labels=_labels_of(verbalizer),
        )
        for question, verbalizer in zip(planned.asked, planned.verbalizers, strict=True)
    )
