"""Fine-tuned classifiers: the labels, the score and the padding that their configuration gives."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trimexport.errors import CheckpointError, SpecError, UnsupportedError
from trimexport.source.checkpoint import Checkpoint
from trimexport.spec import SOFTMAX, BuildSpec
from trimexport_runtime.score import INDEPENDENT, LOGIT, Score

from .tokenizer import SourceTokenizer
from .verbalizer import check_labels

_PROBLEMS = (None, "single_label_classification", "multi_label_classification", "regression")
_NUMBERED = re.compile(r"(LABEL_)?\d+")


def classifier_labels(spec: BuildSpec, checkpoint: Checkpoint) -> tuple[str, ...]:
    """The labels in the order of the output layer's rows: those of `id2label`, or the spec's names
    if the checkpoint only numbers its labels (`LABEL_0`).

    Raises:
        CheckpointError: the output layer has more rows than there are labels, or fewer.
        SpecError: the spec's labels contradict the checkpoint's, or it has words for them.
    """
    own = _own_labels(checkpoint)
    _check_rows(checkpoint, len(own))
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
    check_labels(spec.labels, LOGIT if len(own) == 1 else SOFTMAX)
    return spec.labels


def classifier_score(spec: BuildSpec, checkpoint: Checkpoint) -> Score:
    """How the logits of a checkpoint are read, as transformers' text-classification pipeline reads
    them: a softmax over several labels, a sigmoid of each where the problem is said to be
    multi-label, a sigmoid of one; and where it is a regression, the number itself.

    Raises:
        UnsupportedError: a regression of several numbers, or a problem that is not known.
        SpecError: the spec gives a score of its own.
    """
    if spec.score != SOFTMAX:
        raise SpecError(
            f"{checkpoint.directory} is a fine-tuned classifier, whose score is what it was "
            "trained for; drop --score, --score-scale and --score-shift"
        )
    count, problem = len(checkpoint.config.id2label or {}), checkpoint.config.problem_type
    if problem not in _PROBLEMS or (problem == "regression" and count > 1):
        raise UnsupportedError(
            f"{checkpoint.directory} has the problem_type {problem} and {count} outputs; a bundle "
            "answers with one label of several, with several independent ones, or with one number"
        )
    if count == 1:
        return Score(LOGIT, sigmoid=problem != "regression")
    return Score(INDEPENDENT if problem == "multi_label_classification" else SOFTMAX)


def _check_rows(checkpoint: Checkpoint, labels: int) -> None:
    """Raise CheckpointError if the output layer's rows are not as many as the labels."""
    layer = checkpoint.tensors.get("score.weight")
    if layer is not None and layer.shape[0] != labels:
        raise CheckpointError(
            f"config.json of {checkpoint.directory} names {labels} "
            f"label{'s' * (labels != 1)} (id2label), and the output layer score.weight has "
            f"{layer.shape[0]} rows; give each row its label there"
        )


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
    if not checkpoint.answers_before_padding:
        return ()
    return (
        f'the padding token "{tokenizer.token(pad)}" ({pad}) is no special one: where a text ends '
        "in it, transformers reads the answer before it and the bundle at it; name a special token "
        "as pad_token_id in config.json",
    )
