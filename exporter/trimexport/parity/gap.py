"""The tokenisation gap: texts whose ids differ from those of prompt and text in one string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from trimexport.model.layerwise import LayerwiseModel
from trimexport.numerics import Floats
from trimexport.progress import Progress
from trimexport.prompt.fine_tuned import without_padding
from trimexport.prompt.questions import ask, unasked
from trimexport.prompt.template import join, parse_template
from trimexport.prompt.text_pair import is_text_pair, pair_ids
from trimexport.prompt.tokenizer import SourceTokenizer
from trimexport.records import short
from trimexport_runtime import Manifest
from trimexport_runtime.bundle import Question
from trimexport_runtime.inputs import Input, texts_of
from trimexport_runtime.questions import slices, views

from .boundary import find_gap_cause
from .decisions import decisions_of
from .reference import sequences_per_prompt, trie_of, tuned_reference
from .report import TokenisationGap
from .warnings import GAP_WARNING

Ids = tuple[int, ...]


def measure_gaps(
    bundle: Path,
    model: LayerwiseModel,
    manifest: Manifest,
    tokenizer: SourceTokenizer,
    texts: Sequence[Input],
    uncut: Sequence[Mapping[int, Ids]],
    logits: Floats,
    progress: Progress,
) -> TokenisationGap:
    """`measure_gap` for every question, added up. The proposed prompt is the one that the question
    with the largest share needs.

    Args:
        uncut: as there, for each question.
        logits: the reference's for `texts`, those of all questions, float64 [texts, outputs].
    """
    asked = tuple(map(_written, views(manifest), manifest.questions or (None,)))
    found = [
        measure_gap(
            bundle, model, view, tokenizer, texts, own, logits[:, columns], progress, question
        )
        for question, (view, own, columns) in enumerate(
            zip(asked, uncut, slices(manifest), strict=True)
        )
    ]
    if not manifest.questions:
        return found[0]
    worst = max(range(len(found)), key=lambda place: found[place].share)
    proposal = found[worst].proposal
    if proposal is not None:
        template = parse_template(manifest.prompt.template)
        text = manifest.questions[worst].text
        proposal = unasked(parse_template(proposal), template, text).source
    return replace(
        found[worst],
        compared=sum(gap.compared for gap in found),
        different=sum(gap.different for gap in found),
        flips=sum(gap.flips for gap in found),
        proposal=proposal,
        by_question={
            question.name: gap.share
            for question, gap in zip(manifest.questions, found, strict=True)
        },
    )


def _written(view: Manifest, question: Question | None) -> Manifest:
    """A question's view, with its text in the prompt's template."""
    if question is None:
        return view
    template = ask(parse_template(view.prompt.template), question.text).source
    return replace(view, prompt=replace(view.prompt, template=template))


def measure_gap(
    bundle: Path,
    model: LayerwiseModel,
    manifest: Manifest,
    tokenizer: SourceTokenizer,
    texts: Sequence[Input],
    uncut: Mapping[int, Ids],
    logits: Floats,
    progress: Progress,
    question: int = 0,
) -> TokenisationGap:
    """Compare prompts that are tokenised by segment with the same as joined strings, and run the
    model on the joined ones that differ.

    Args:
        uncut: the bundle's ids of the whole prompt, by the place of the text, without the texts
            that were cut to the bundle's limit.
        logits: the reference's for `texts`, float64 [texts, outputs].
        question: which of the bundle's questions this is.
    """
    joined = _joined_ids(model, manifest, tokenizer, texts, uncut)
    different = [place for place, ids in joined.items() if ids != uncut[place]]
    if not different:
        return TokenisationGap(len(joined), different=0, flips=0, example=None)
    sequences = len(different) * sequences_per_prompt(manifest)
    with progress.bar("texts with a tokenisation gap", sequences) as tick:
        prompts = [joined[place] for place in different]
        joined_logits = tuned_reference(bundle, model, manifest, prompts, tick, question).logits
    gap = TokenisationGap(
        compared=len(joined),
        different=len(different),
        flips=int(decisions_of(manifest).some_differ(joined_logits, logits[different]).sum()),
        example=short(texts[different[0]]),
        fixed=manifest.prompt.rendered or model.checkpoint.is_classifier,
    )
    if gap.fixed or gap.share <= GAP_WARNING:
        return gap
    template = parse_template(manifest.prompt.template)
    rows = [texts_of(manifest.prompt.places, texts[place]) for place in joined]
    cause = find_gap_cause(template, tokenizer, rows)
    proposal = None if cause.proposal is None else cause.proposal.source
    return replace(gap, proposal=proposal, at_prefix=cause.at_prefix)


def _joined_ids(
    model: LayerwiseModel,
    manifest: Manifest,
    tokenizer: SourceTokenizer,
    texts: Sequence[Input],
    uncut: Mapping[int, Ids],
) -> dict[int, Ids]:
    """The ids of prompt and text as one string, by the place of the text, without the strings that
    are longer than the model's context."""
    template = parse_template(manifest.prompt.template)
    checkpoint, rendered = model.checkpoint, manifest.prompt.rendered
    classifier, trie = checkpoint.is_classifier, trie_of(manifest)
    room = checkpoint.context - checkpoint.virtual_tokens - (max(trie.depths) if trie else 0)
    joined = {}
    for place in uncut:
        given = texts_of(manifest.prompt.places, texts[place])
        if classifier and is_text_pair(template):
            start, end = pair_ids(tokenizer, given)
        else:
            start = tokenizer.encode_start(join(template, given), rendered=rendered)
            end = tokenizer.end_ids if classifier else ()
        if checkpoint.answers_before_padding:
            end = without_padding(end, checkpoint.config.pad_token_id)
        ids = (*start, *end)
        if len(ids) <= room:
            joined[place] = ids
    return joined
