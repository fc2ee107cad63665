"""`POST /rerank`, with the requests and answers of text-embeddings-inference.

https://huggingface.github.io/text-embeddings-inference
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimexport_runtime.ranking import ranked

from .fields import check_fields, flag_or, text, text_or_none
from .refusals import Refusal, shown
from .scoring import Pairs, Scored, json_object
from .tei import check_side

FIELDS = (
    "query", "texts", "raw_scores", "return_text", "truncate", "truncation_direction",
    "instruction",
)  # fmt: skip
_FORM = '{"query": "a question", "texts": ["a text"]}'


@dataclass(frozen=True)
class Request:
    """A request. `returned` says that the texts are to be in the answer."""

    asked: Pairs
    returned: bool


def read(body: Any, cuts: str) -> Request:
    """The request that a JSON body makes of a bundle that cuts long texts at `cuts`.

    Raises:
        Refusal: it is not of this form, or asks for what this server does not do.
    """
    given = json_object(body, _FORM)
    check_fields(given, FIELDS, "; ?model=NAME in the path names a model")
    query, texts = text(given, "query"), given.get("texts")
    if not isinstance(texts, list) or not texts or not all(isinstance(it, str) for it in texts):
        raise Refusal("bad_input", f"texts is {shown(texts)}; it must be a list of strings")
    asked = Pairs(
        [(query, it) for it in texts],
        instruction=text_or_none(given, "instruction"),
        truncate=flag_or(given, "truncate", False),
        raw=flag_or(given, "raw_scores", False),
    )
    check_side(given.get("truncation_direction"), asked.truncate, cuts)
    return Request(asked, flag_or(given, "return_text", False))


def answer(request: Request, scored: Scored) -> list[dict[str, Any]]:
    """The places of the texts with their scores, the highest first."""
    texts = [it for _, it in request.asked.pairs]
    return [
        {"index": place, "score": scored.scores[place]}
        | ({"text": texts[place]} if request.returned else {})
        for place in ranked(scored.scores)
    ]
