"""The terms that what is made of a model has to carry."""

from __future__ import annotations

from .checkpoint import Checkpoint
from .families import notice_for
from .prompts_file import notice_of


def notices(checkpoint: Checkpoint, own: str | None) -> str | None:
    """A build's own notice, that of the checkpoint's card and that of the model's family, as one
    text; None where there is none."""
    known = notice_for(checkpoint.architecture, checkpoint.config.vocab_size)
    given = dict.fromkeys((own, notice_of(checkpoint.directory), known))
    return " ".join(notice.rstrip(".") + "." for notice in given if notice) or None
