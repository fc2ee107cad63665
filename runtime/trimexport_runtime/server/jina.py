"""`POST /v1/rerank`, with the requests and answers of Jina's reranker as vLLM gives them.

Cohere's clients of version 1 ask for the same path, and read these answers too.

https://api.jina.ai/redoc
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from .fields import flag_or
from .scoring import Ranking, Scored, read_ranking, results


def read(body: Any) -> Ranking:
    """The request that a JSON body makes. Its `use_activation` is vLLM's.

    Raises:
        Refusal: it is not of this form, or asks for what this server does not do.
    """
    ranking = read_ranking(body, "use_activation", truncate=False, returned=True)
    raw = not flag_or(body, "use_activation", True)
    return replace(ranking, asked=replace(ranking.asked, raw=raw))


def answer(ranking: Ranking, model: str, scored: Scored) -> dict[str, Any]:
    """The ranked documents, and how many tokens were read."""
    return {
        "id": f"rerank-{uuid.uuid4().hex}",
        "model": model,
        "usage": {"prompt_tokens": scored.tokens, "total_tokens": scored.tokens},
        "results": results(ranking, scored),
    }
