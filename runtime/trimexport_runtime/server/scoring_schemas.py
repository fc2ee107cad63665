"""The JSON Schemas of requests for scores and of their answers."""

from __future__ import annotations

from .schemas import Schema

_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "array", "minItems": 1, "items": _TEXT}
_ONE_OR_SEVERAL: Schema = {"oneOf": [_TEXT, _TEXTS]}
_MODEL: Schema = {"type": ["string", "null"]}
_NO: Schema = {"type": ["boolean", "null"], "default": False}
_YES: Schema = {"type": ["boolean", "null"], "default": True}
_DOCUMENT: Schema = {"type": "object", "required": ["text"], "properties": {"text": _TEXT}}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_USAGE: Schema = {
    "type": "object",
    "required": ["prompt_tokens", "total_tokens"],
    "properties": {"prompt_tokens": _COUNT, "total_tokens": _COUNT},
}


def _asking(required: tuple[str, ...], **properties: Schema) -> Schema:
    """A request with these fields, and those that every request for scores has."""
    common: dict[str, Schema] = {"truncate": _NO, "instruction": {"type": ["string", "null"]}}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties | {name: common[name] for name in common.keys() - properties},
    }


def _ranking(**properties: Schema) -> Schema:
    return _asking(
        ("query", "documents"),
        model=_MODEL,
        query=_TEXT,
        documents={"type": "array", "minItems": 1, "items": {"oneOf": [_TEXT, _DOCUMENT]}},
        top_n={"type": ["integer", "null"], "minimum": 1},
        **properties,
    )


RERANK = _asking(
    ("query", "texts"),
    query=_TEXT,
    texts=_TEXTS,
    raw_scores=_NO,
    return_text=_NO,
    truncation_direction={"enum": ["left", "right", "Left", "Right"]},
)
RERANKED: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["index", "score"],
        "properties": {"index": _COUNT, "score": {"type": "number"}, "text": _TEXT},
    },
}
JINA_RERANK = _ranking(return_documents=_YES, use_activation=_YES)
COHERE_RERANK = _ranking(return_documents=_NO, truncate=_YES)
_RESULTS: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["index", "relevance_score"],
        "properties": {
            "index": _COUNT,
            "relevance_score": {"type": "number"},
            "document": _DOCUMENT,
        },
    },
}
JINA_RERANKED: Schema = {
    "type": "object",
    "required": ["id", "model", "usage", "results"],
    "properties": {"id": _TEXT, "model": _TEXT, "usage": _USAGE, "results": _RESULTS},
}
COHERE_RERANKED: Schema = {
    "type": "object",
    "required": ["id", "results", "meta"],
    "properties": {"id": _TEXT, "results": _RESULTS, "meta": {"type": "object"}},
}
SCORE: Schema = _asking(
    (),
    model=_MODEL,
    queries=_ONE_OR_SEVERAL,
    documents=_ONE_OR_SEVERAL,
    text_1=_ONE_OR_SEVERAL,
    text_2=_ONE_OR_SEVERAL,
    use_activation=_YES,
) | {"oneOf": [{"required": ["queries", "documents"]}, {"required": ["text_1", "text_2"]}]}
SCORED: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "model", "data", "usage"],
    "properties": {
        "id": _TEXT,
        "object": {"const": "list"},
        "created": {"type": "integer"},
        "model": _TEXT,
        "data": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "object", "score"],
                "properties": {
                    "index": _COUNT,
                    "object": {"const": "score"},
                    "score": {"type": "number"},
                },
            },
        },
        "usage": _USAGE,
    },
}
_PART: Schema = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": _TEXT},
}
MODERATE: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["input"],
    "properties": {
        "model": _MODEL,
        "input": {
            "oneOf": [
                _TEXT,
                _TEXTS,
                {"type": "array", "minItems": 1, "maxItems": 1, "items": _PART},
            ]
        },
        "truncate": _NO,
    },
}


def _by_category(value: Schema) -> Schema:
    return {"type": "object", "additionalProperties": value}


MODERATED: Schema = {
    "type": "object",
    "required": ["id", "model", "results"],
    "properties": {
        "id": _TEXT,
        "model": _TEXT,
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": [
                    "flagged", "categories", "category_scores", "category_applied_input_types",
                ],
                "properties": {
                    "flagged": {"type": "boolean"},
                    "categories": _by_category({"type": "boolean"}),
                    "category_scores": _by_category({"type": "number"}),
                    "category_applied_input_types": _by_category(
                        {"type": "array", "items": {"const": "text"}}
                    ),
                },
            },
        },
    },
}  # fmt: skip
