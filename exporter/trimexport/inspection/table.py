"""An inspection as text for a terminal."""

from __future__ import annotations

from trimexport.planning import Plan
from trimexport.prompt.verbalizer import LabelWord
from trimexport.tables import columns
from trimexport_runtime.bundle import SOFTMAX

from .sizes import Inspection, Merge


def inspection_table(inspection: Inspection, planned: Plan) -> str:
    """The parts before and after the cut, the sizes, the prompt and the label tokens."""
    lines = [("part", "modules", "parameters before", "after")]
    lines += [
        (part.name, f"{part.modules}", f"{part.before:,}", f"{part.after:,}")
        for part in inspection.parts
    ]
    words = _label_lines(planned)
    tied = "; the tied embedding keeps its rows, for the texts need them" if inspection.tied else ""
    return "\n".join(
        [
            f"{planned.checkpoint.architecture} in {planned.checkpoint.directory}",
            *_merge_line(inspection.merge),
            *columns(lines),
            "",
            f"checkpoint on disk: {_megabytes(inspection.checkpoint_bytes)}",
            f"float32 weights: {_megabytes(inspection.bytes_before)} before, "
            f"{_megabytes(inspection.bytes_after)} after (of which the compiled prefix "
            f"{_megabytes(inspection.prefix_bytes)}){tied}",
            f"output layer: {inspection.head_before:,} multiplications a text before, "
            f"{inspection.head_after:,} after",
            _prompt_line(planned),
            *words,
        ]
    )


def _prompt_line(planned: Plan) -> str:
    """The line on the prompt's tokens and the room that they leave."""
    prompt = planned.prompt
    before, after = len(prompt.prefix_ids), len(prompt.suffix_ids)
    virtual = planned.checkpoint.virtual_tokens
    trained = f"{virtual} virtual tokens and " if virtual else ""
    if len(prompt.fields) == 1:
        return (
            f"prompt: {trained}{before} tokens before a text and {after} after it, which leaves "
            f"{planned.limit} for the text"
        )
    between = sum(len(field.before) for field in prompt.fields)
    names = ", ".join(field.name for field in prompt.fields)
    return (
        f"prompt: {trained}{before} tokens before the fields, {between} between and {after} after "
        f"them, which leaves {planned.limit - between} for {names}"
    )


def _merge_line(merge: Merge | None) -> list[str]:
    """The line on what an adapter changes, if there is one."""
    if merge is None:
        return []
    if merge.trained is not None:
        return [
            f"with the adapter {merge.adapter}: {merge.trained}, {merge.replaced} tensors replaced"
        ]
    ranks = ", ".join(map(str, merge.ranks)) or "0"
    return [
        f"with the adapter {merge.adapter}: {merge.matrices} matrices changed by rank {ranks}, "
        f"{merge.replaced} tensors replaced"
    ]


def _label_lines(planned: Plan) -> list[str]:
    """A line for each label: its words' tokens, or the row of a fine-tuned classifier; and one on
    the score, if it is no softmax."""
    verbalizer, kind = planned.verbalizer, planned.score.kind
    score = [] if kind == SOFTMAX else [f"score: {planned.score.phrase}"]
    if verbalizer is None:
        return [*(f"label {name}: row {row}" for row, name in enumerate(planned.labels)), *score]
    read = None if verbalizer.sequences else 1  # tokens of each word; None is all
    lines = [
        f"label {name}: " + ", ".join(_spelled(word, read) for word in group)
        for name, group in zip(verbalizer.labels, verbalizer.words, strict=True)
    ]
    return [*lines, *score]


def _spelled(word: LabelWord, read: int | None) -> str:
    """The first tokens of a word with their ids."""
    tokens = zip(word.tokens[:read], word.token_ids[:read], strict=True)
    return " ".join(f"{token} ({token_id})" for token, token_id in tokens)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB"
