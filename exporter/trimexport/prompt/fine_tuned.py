"""Fine-tuned classifiers: the labels and the padding that their configuration gives."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trimexport.errors import SpecError, UnsupportedError
from trimexport.source.checkpoint import Checkpoint
from trimexport.spec import BuildSpec

from .tokenizer import SourceTokenizer
from .verbalizer import check_labels

_NUMBERED = re.compile(r"(LABEL_)?\d+")


def classifier_labels(spec: BuildSpec, checkpoint: Checkpoint) -> tuple[str, ...]:
    """The labels in the order of the output layer's rows: those of `id2label`, or the spec's names
    if the checkpoint only numbers its labels (`LABEL_0`).

    Raises:
        UnsupportedError: the model was not trained to choose one of several labels.
        SpecError: the spec's labels contradict the checkpoint's, or it has words for them.
    """
    own, problem = _own_labels(checkpoint), checkpoint.config.problem_type
    if problem not in (None, "single_label_classification") or len(own) < 2:
        what = problem or f"it has {len(own)} output"
        raise UnsupportedError(
            f"{checkpoint.directory} does not choose one of several labels ({what}); regression "
            "and multi-label classifiers cannot be built"
        )
    if spec.verbalizers:
        raise SpecError(
            f"{checkpoint.directory} is a fine-tuned classifier, whose labels need no words; drop "
            "--verbalize"
        )
    if not spec.labels or spec.labels == own:
        return own
    if not all(map(_NUMBERED.fullmatch, own)) or len(spec.labels) != len(own):
        raise SpecError(
            f"{checkpoint.directory} has {len(own)} labels of its own, {', '.join(own)}; drop "
            "--labels (labels that are only numbered, LABEL_0, can be named: as many, in their "
            "order)"
        )
    check_labels(spec.labels)
    return spec.labels


def _own_labels(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The labels of `id2label`, by number.

    Raises:
        SpecError: they are not numbered from 0, or two have one name.
    """
    given = checkpoint.config.id2label or {}
    names = {int(index): name for index, name in given.items() if isinstance(name, str)}
    distinct = len({name for name in names.values() if name.strip()}) == len(given)
    if sorted(names) != list(range(len(names))) or not distinct:
        raise SpecError(
            f"id2label in config.json of {checkpoint.directory} does not number its labels from 0, "
            "or does not give each a name of its own; mend it"
        )
    return tuple(names[index] for index in range(len(names)))


def without_padding(ids: Sequence[int], pad_token_id: int | None) -> tuple[int, ...]:
    """The ids up to the last one that is not the padding token. There transformers reads a
    classifier's answer, even if a real end token is the padding token too."""
    kept = list(ids)
    while kept and kept[-1] == pad_token_id:
        kept.pop()
    return tuple(kept)


def padding_notes(
    checkpoint: Checkpoint, tokenizer: SourceTokenizer, suffix_ids: Sequence[int]
) -> tuple[str, ...]:
    """A line for the user if a text may end in the padding token itself: transformers then reads
    the answer before that token, and the bundle at it."""
    pad = checkpoint.config.pad_token_id
    added = tokenizer.definition["added_tokens"]
    special = {token["id"] for token in added if token["special"]}
    if pad is None or suffix_ids or pad in special or tokenizer.whole.id_to_token(pad) is None:
        return ()
    return (
        f'the padding token "{tokenizer.token(pad)}" ({pad}) is no special one: where a text ends '
        "in it, transformers reads the answer before it and the bundle at it; name a special token "
        "as pad_token_id in config.json",
    )
