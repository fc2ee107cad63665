"""The index of models in the Open Inference Protocol's extension for repositories.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .body import parse
from .fields import flag
from .refusals import Refusal, shown


def only_ready(body: bytes) -> bool:
    """Whether a request for the index, whose body may be empty, asks for ready models alone.

    Raises:
        Refusal: it is not of this protocol.
    """
    asked = parse(body) if body else {}
    if not isinstance(asked, dict):
        raise Refusal("bad_input", f'the body is {shown(asked)}; it may be {{"ready": true}}')
    return flag(asked, "ready")


def index(
    models: Iterable[str], unavailable: Mapping[str, str], ready: bool
) -> list[dict[str, str]]:
    """`POST /v2/repository/index`: the models that are served, and, unless those that are `ready`
    are asked for alone, the others with the reason why not. One may be both, where another pack of
    its name could not be loaded.
    """
    served = [
        {"name": it, "version": "1", "state": "READY", "reason": unavailable.get(it, "")}
        for it in models
    ]
    others = [] if ready else sorted(unavailable.keys() - set(models))
    return served + [
        {"name": it, "version": "1", "state": "UNAVAILABLE", "reason": unavailable[it]}
        for it in others
    ]
