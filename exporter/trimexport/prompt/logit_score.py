"""The labels and the score of a reranker that sentence-transformers has saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trimexport.errors import SpecError
from trimexport.source.hub import locate_config
from trimexport.source.logit_score import LogitScore, read_logit_score
from trimexport.spec import LOG_ODDS, LOGIT, SOFTMAX, BuildSpec

from .tokenizer import load_tokenizer
from .verbalizer import Verbalizer


def with_saved_score(spec: BuildSpec) -> tuple[BuildSpec, LogitScore | None]:
    """The spec with the labels of the checkpoint's own score, and that score; the spec as it is,
    and None, where it names labels or the checkpoint has no such score.

    Raises:
        CheckpointError, HubError: the model, its score or its tokenizer cannot be read.
        SpecError: the vocabulary lacks one of the score's tokens.
    """
    if spec.labels:
        return spec, None
    directory = locate_config(spec.model, spec.revision)
    if (found := read_logit_score(directory)) is None:
        return spec, None
    tokenizer = load_tokenizer(Path(spec.tokenizer or directory)).whole
    for token_id in found.token_ids:
        if tokenizer.id_to_token(token_id) is None:
            raise SpecError(
                f"{found.file} names the token {token_id}, and the vocabulary ends before it; name "
                "the labels with --labels, or the tokenizer with --tokenizer"
            )
    labels = tuple(tokenizer.decode([token_id]).strip() for token_id in found.token_ids)
    kind = LOG_ODDS if len(labels) == 2 else LOGIT
    score = kind if spec.score == SOFTMAX else spec.score
    return replace(spec, labels=labels, score=score), found


def check_saved_tokens(verbalizer: Verbalizer, saved: LogitScore) -> None:
    """Raise SpecError if behind this prompt the labels are other tokens than the score's."""
    for label, words, expected in zip(
        verbalizer.labels, verbalizer.words, saved.token_ids, strict=True
    ):
        found = words[0].token_ids[0]
        if found != expected:
            raise SpecError(
                f'behind this prompt the label "{label}" is the token {found}, and {saved.file} '
                f"names {expected}; end the prompt as the model's chat template does, or name the "
                "labels with --labels"
            )
