"""The terms that a bundle has to carry."""

from __future__ import annotations

from .checkpoint import Checkpoint
from .families import notice_for
from .prompts_file import notice_of


def all_notices(own: str | None, checkpoint: Checkpoint) -> str | None:
    """The notices of a spec, of the checkpoint's card and of the model's family, as one text; None
    where there is none."""
    known = notice_for(checkpoint.architecture, checkpoint.config.vocab_size)
    notices = dict.fromkeys((own, notice_of(checkpoint.directory), known))
    return " ".join(notice.rstrip(".") + "." for notice in notices if notice) or None
