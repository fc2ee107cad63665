"""`POST /v2/rerank`, with the requests and answers of Cohere.

https://docs.cohere.com/reference/rerank
"""

from __future__ import annotations

import uuid
from typing import Any

from .scoring import Ranking, Scored, read_ranking, results


def read(body: Any) -> Ranking:
    """The request that a JSON body makes. Long documents are cut, as Cohere does, unless it says
    otherwise.

    Raises:
        Refusal: it is not of this form, or asks for what this server does not do.
    """
    return read_ranking(body, truncate=True, returned=False)


def answer(ranking: Ranking, model: str, scored: Scored) -> dict[str, Any]:
    """The ranked documents, and how many tokens were read. Nothing is billed."""
    return {
        "id": str(uuid.uuid4()),
        "results": results(ranking, scored),
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 0},
            "tokens": {"input_tokens": scored.tokens},
        },
    }
