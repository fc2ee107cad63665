"""The JSON Schemas of requests and answers (https://json-schema.org/draft/2020-12)."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

ERROR: Schema = {
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {"error": {"type": "string"}, "error_type": {"type": "string"}},
}
_DETAILS: Schema = {
    "type": "object",
    "required": ["message", "type", "param", "code"],
    "properties": {
        "message": {"type": "string"},
        "type": {"type": "string"},
        "param": {"type": "null"},
        "code": {"type": ["string", "integer"]},
    },
}
NESTED_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": _DETAILS},
}
DETAILED_ERROR: Schema = {
    "type": "object",
    "required": ["error", "detail", "message"],
    "properties": {
        "error": _DETAILS,
        "detail": {"type": "string"},
        "message": {"type": "string"},
    },
}
MESSAGE: Schema = {
    "type": "object",
    "required": ["id", "message"],
    "properties": {"id": {"type": "string"}, "message": {"type": "string"}},
}
TEXTS: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["texts"],
    "properties": {
        "texts": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "truncate": {"type": "boolean", "default": False},
    },
}
_ONE_TEXT = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1}
PREDICT: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["inputs"],
    "properties": {
        "inputs": {
            "oneOf": [
                {"type": "string"},
                _ONE_TEXT,
                {"type": "array", "minItems": 1, "items": _ONE_TEXT},
            ]
        },
        "raw_scores": {"type": "boolean", "default": False},
        "truncate": {"type": ["boolean", "null"], "default": False},
        "truncation_direction": {"enum": ["left", "right", "Left", "Right"]},
    },
}
INFER: Schema = {
    "type": "object",
    "examples": [
        {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a film"]}]}
    ],
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "datatype", "shape", "data"],
                "properties": {
                    "name": {"const": "text"},
                    "datatype": {"const": "BYTES"},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                    "data": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
        "parameters": {
            "type": "object",
            "properties": {"truncate": {"type": "boolean", "default": False}},
        },
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"enum": ["label", "probabilities"]}},
            },
        },
    },
}
_SHARE = {"type": "number"}  # from 0 to 1, but of a score without a sigmoid any
CLASSIFIED: Schema = {
    "type": "object",
    "required": ["model", "variant", "provider", "predictions"],
    "properties": {
        "model": {"type": "string"},
        "variant": {"type": "string"},
        "provider": {"type": "string"},
        "predictions": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["label", "probability", "probabilities", "truncated", "tokens"],
                "properties": {
                    "label": {"type": "string"},
                    "probability": _SHARE,
                    "probabilities": {"type": "object", "additionalProperties": _SHARE},
                    "score": {"type": "number"},
                    "labels": {"type": "array", "items": {"type": "string"}},
                    "truncated": {"type": "boolean"},
                    "tokens": {"type": "integer", "minimum": 0},
                },
            },
        },
    },
}
_SCORES = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["score", "label"],
        "properties": {"score": {"type": "number"}, "label": {"type": "string"}},
    },
}
PREDICTED: Schema = {"oneOf": [_SCORES, {"type": "array", "items": _SCORES}]}
INFERRED: Schema = {
    "type": "object",
    "required": ["model_name", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "datatype", "shape", "data"],
                "properties": {
                    "name": {"enum": ["label", "probabilities"]},
                    "datatype": {"enum": ["BYTES", "FP64", "FP32"]},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                    "data": {"type": "array", "items": {"type": ["string", "number"]}},
                },
            },
        },
    },
}
OBJECT: Schema = {"type": "object"}
