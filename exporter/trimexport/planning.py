"""Resolve a spec: every name in it becomes what it stands for, before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .checkpoint import Checkpoint, open_checkpoint
from .errors import SpecError
from .families import notice_for
from .hub import locate_model
from .prompt import CompiledPrompt, compile_prompt, parse_template
from .shipped import notice_of
from .spec import BuildSpec
from .tokenizer import SourceTokenizer, load_tokenizer, text_tokenizer
from .verbalizer import Verbalizer, make_verbalizer


@dataclass(frozen=True)
class Plan:
    """A spec whose every name has been resolved: what the bundle will hold, before any weight.

    `limit` is how many tokens a text may have, `text_tokenizer` the bundle's tokenizer.json, and
    `notice` the terms that the bundle has to carry.
    """

    spec: BuildSpec
    checkpoint: Checkpoint
    tokenizer: SourceTokenizer
    prompt: CompiledPrompt
    verbalizer: Verbalizer
    limit: int
    text_tokenizer: Mapping[str, Any]
    notice: str | None


def plan(spec: BuildSpec) -> Plan:
    """Resolve a spec: find the model, tokenise the prompt, find the label tokens.

    Raises:
        SpecError: labels, prompt or limit that cannot be built.
        CheckpointError: a model that cannot be read or is not supported.
    """
    template = parse_template(spec.prompt)
    directory = locate_model(spec.model, spec.revision)
    checkpoint = open_checkpoint(directory, spec.model, spec.revision)
    tokenizer = load_tokenizer(directory)
    verbalizer = make_verbalizer(spec.labels, spec.verbalizers, template, tokenizer)
    prompt = compile_prompt(template, tokenizer)
    return Plan(
        spec=spec,
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        prompt=prompt,
        verbalizer=verbalizer,
        limit=_text_limit(spec, checkpoint, prompt),
        text_tokenizer=text_tokenizer(tokenizer, prompt.text_lead),
        notice=_notice(spec, checkpoint),
    )


def _text_limit(spec: BuildSpec, checkpoint: Checkpoint, prompt: CompiledPrompt) -> int:
    """How many tokens the prompt leaves for a text."""
    total = min(checkpoint.context, spec.max_tokens or checkpoint.context)
    around = len(prompt.prefix_ids) + len(prompt.suffix_ids)
    if total - around < 1:
        raise SpecError(
            f"the prompt takes {around} of {total} tokens and leaves none for a text; shorten it"
            + (" or raise --max-tokens" if total < checkpoint.context else "")
        )
    return total - around


def _notice(spec: BuildSpec, checkpoint: Checkpoint) -> str | None:
    """Every notice there is: the spec's, that of the checkpoint's card, and what is known."""
    known = notice_for(checkpoint.architecture, checkpoint.config.vocab_size)
    notices = dict.fromkeys((spec.notice, notice_of(checkpoint.directory), known))
    return " ".join(notice.rstrip(".") + "." for notice in notices if notice) or None
