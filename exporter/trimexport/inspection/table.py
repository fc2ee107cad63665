"""What would be cut, as text for a terminal."""

from __future__ import annotations

from trimexport.planning import Plan
from trimexport.prompt.verbalizer import LabelWord
from trimexport.tables import columns

from .sizes import Inspection


def inspection_table(found: Inspection, planned: Plan) -> str:
    """What would be cut, as text for a terminal."""
    lines = [("part", "modules", "parameters before", "after")]
    lines += [
        (part.name, f"{part.modules}", f"{part.before:,}", f"{part.after:,}")
        for part in found.parts
    ]
    words = _label_lines(planned)
    around = len(planned.prompt.prefix_ids), len(planned.prompt.suffix_ids)
    tied = "; the tied embedding keeps its rows, for the texts need them" if found.tied else ""
    return "\n".join(
        [
            f"{planned.checkpoint.architecture} in {planned.checkpoint.directory}",
            *_merge_line(found),
            *columns(lines),
            "",
            f"checkpoint on disk: {_megabytes(found.checkpoint_bytes)}",
            f"float32 weights: {_megabytes(found.bytes_before)} before, "
            f"{_megabytes(found.bytes_after)} after (of which the compiled prefix "
            f"{_megabytes(found.prefix_bytes)}){tied}",
            f"output layer: {found.head_before:,} multiplications a text before, "
            f"{found.head_after:,} after",
            f"prompt: {around[0]} tokens before a text and {around[1]} after it, "
            f"which leaves {planned.limit} for the text",
            *words,
        ]
    )


def _merge_line(found: Inspection) -> list[str]:
    """What an adapter changes, where there is one."""
    if found.merge is None:
        return []
    ranks = ", ".join(map(str, found.merge.ranks)) or "0"
    return [
        f"with the adapter {found.merge.adapter}: {found.merge.matrices} matrices changed by rank "
        f"{ranks}, {found.merge.replaced} tensors replaced"
    ]


def _label_lines(planned: Plan) -> list[str]:
    """The tokens that stand for each label; a fine-tuned classifier has a row for each."""
    verbalizer = planned.verbalizer
    if verbalizer is None:
        return [f"label {name}: row {row}" for row, name in enumerate(planned.labels)]
    read = None if verbalizer.sequences else 1  # of each word's tokens
    return [
        f"label {name}: " + ", ".join(_spelled(word, read) for word in group)
        for name, group in zip(verbalizer.labels, verbalizer.words, strict=True)
    ]


def _spelled(word: LabelWord, read: int | None) -> str:
    tokens = zip(word.tokens[:read], word.token_ids[:read], strict=True)
    return " ".join(f"{token} ({token_id})" for token, token_id in tokens)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB"
