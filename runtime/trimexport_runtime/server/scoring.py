"""What requests for the scores of pairs, a query and a document, have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimexport_runtime.errors import InputError
from trimexport_runtime.manifest import Manifest
from trimexport_runtime.ranking import pair_inputs, ranked, raw_scores, score_of

from .fields import check_fields, count_or_none, flag_or, text, text_or_none
from .refusals import Refusal, shown
from .service import Classified

RANKING_FIELDS = (
    "model", "query", "documents", "top_n", "return_documents", "truncate", "instruction",
)  # fmt: skip
MODEL_NAMED = "; ?model=NAME in the path names a model too"
_FORM = '{"query": "a question", "documents": ["a text"]}'


@dataclass(frozen=True)
class Pairs:
    """Pairs of a query and a document that are to be scored.

    `model` names the bundle, or is None for the first. `instruction` replaces the default of the
    prompt's field of that name. `truncate` has documents cut that are too long, and `raw` asks for
    the scores before any sigmoid.
    """

    pairs: list[tuple[str, str]]
    model: str | None = None
    instruction: str | None = None
    truncate: bool = False
    raw: bool = False


@dataclass(frozen=True)
class Scored:
    """The score of each pair, and how many tokens they had together."""

    scores: list[float]
    tokens: int


@dataclass(frozen=True)
class Ranking:
    """A request to rank documents for a query. `top` is how many are asked for, None for all;
    `returned` says whether the documents are to be in the answer."""

    asked: Pairs
    top: int | None
    returned: bool


def read_ranking(body: Any, *more: str, truncate: bool, returned: bool) -> Ranking:
    """The request that a JSON body makes in the dialects of Jina and Cohere.

    Args:
        more: fields that a dialect has besides `RANKING_FIELDS`.
        truncate: whether long documents are cut where the body does not say.
        returned: whether documents are in the answer where the body does not say.

    Raises:
        Refusal: it is not of this form, or asks for what this server does not do.
    """
    given = json_object(body, _FORM)
    check_fields(given, RANKING_FIELDS + more, MODEL_NAMED)
    query, documents = text(given, "query"), documents_of(given, "documents")
    asked = Pairs(
        [(query, it) for it in documents],
        model=text_or_none(given, "model"),
        instruction=text_or_none(given, "instruction"),
        truncate=flag_or(given, "truncate", truncate),
    )
    returned = flag_or(given, "return_documents", returned)
    return Ranking(asked, count_or_none(given, "top_n"), returned)


def results(ranking: Ranking, scored: Scored) -> list[dict[str, Any]]:
    """The places of the documents with their scores in those dialects, the highest first."""
    texts = [it for _, it in ranking.asked.pairs]
    return [
        {"index": place, "relevance_score": scored.scores[place]}
        | ({"document": {"text": texts[place]}} if ranking.returned else {})
        for place in ranked(scored.scores, ranking.top)
    ]


def json_object(body: Any, form: str) -> dict[str, Any]:
    """A JSON body, if it is an object; `form` says what it should be.

    Raises:
        Refusal: it is none.
    """
    if not isinstance(body, dict):
        raise Refusal("bad_input", f"the body is {shown(body)}; it must be an object: {form}")
    return body


def documents_of(body: dict[str, Any], name: str) -> list[str]:
    """The documents of a request, which are strings or objects with a text.

    Raises:
        Refusal: there are none, or one is something else.
    """
    given = body.get(name)
    if not isinstance(given, list) or not given:
        raise Refusal("bad_input", f"{name} is {shown(given)}; it must be a list of documents")
    texts = []
    for place, item in enumerate(given):
        found = item.get("text") if isinstance(item, dict) else item
        if not isinstance(found, str):
            raise Refusal(
                "bad_input",
                f"document {place} is {shown(item)}; it must be a string, or an object with a text",
            )
        texts.append(found)
    return texts


def inputs_of(manifest: Manifest, asked: Pairs) -> list[dict[str, str]]:
    """The inputs of a bundle for the pairs.

    Raises:
        Refusal: the bundle cannot score pairs, or has no field for the instruction.
    """
    try:
        return pair_inputs(manifest, asked.pairs, asked.instruction)
    except InputError as error:
        raise Refusal("no_reranker", str(error)) from None


def scored(manifest: Manifest, asked: Pairs, classified: Classified) -> Scored:
    """The scores that are asked for."""
    return Scored(
        scores=raw_scores(manifest, classified.logits)
        if asked.raw
        else [score_of(prediction) for prediction in classified.predictions],
        tokens=sum(prediction.tokens for prediction in classified.predictions),
    )
