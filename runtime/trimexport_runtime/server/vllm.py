"""`POST /score`, with the requests and answers of vLLM.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from .fields import check_fields, flag_or, text_or_none
from .refusals import Refusal, shown
from .scoring import MODEL_NAMED, Pairs, Scored, json_object

_SIDES = (("queries", "documents"), ("text_1", "text_2"))
FIELDS = ("model", *_SIDES[0], *_SIDES[1], "truncate", "instruction", "use_activation")
_FORM = '{"queries": "a question", "documents": ["a text"]}, or text_1 and text_2'


def read(body: Any) -> Pairs:
    """The pairs that a JSON body asks for: one query with each of the documents, or the first with
    the first, the second with the second and so on.

    Raises:
        Refusal: it is not of this form, or asks for what this server does not do.
    """
    given = json_object(body, _FORM)
    check_fields(given, FIELDS, MODEL_NAMED)
    named = [sides for sides in _SIDES if any(given.get(name) is not None for name in sides)]
    if len(named) != 1:
        raise Refusal("bad_input", f"send one form of queries and documents: {_FORM}")
    queries, documents = (_listed(given, name) for name in named[0])
    if len(queries) == 1:
        queries *= len(documents)
    if len(queries) != len(documents):
        raise Refusal(
            "bad_input",
            f"{len(queries)} {named[0][0]} are given with {len(documents)} {named[0][1]}; send one "
            "query for all documents, or as many queries as documents",
        )
    return Pairs(
        list(zip(queries, documents, strict=True)),
        model=text_or_none(given, "model"),
        instruction=text_or_none(given, "instruction"),
        truncate=flag_or(given, "truncate", False),
        raw=not flag_or(given, "use_activation", True),
    )


def answer(model: str, scored: Scored) -> dict[str, Any]:
    """The scores in the order of the pairs, and how many tokens were read."""
    return {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [
            {"index": place, "object": "score", "score": score}
            for place, score in enumerate(scored.scores)
        ],
        "usage": {"prompt_tokens": scored.tokens, "total_tokens": scored.tokens},
    }


def _listed(given: dict[str, Any], name: str) -> list[str]:
    value = given.get(name)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(it, str) for it in texts):
        raise Refusal(
            "bad_input", f"{name} is {shown(value)}; it must be a string or a list of them"
        )
    return texts
