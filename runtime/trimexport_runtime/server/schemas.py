"""The JSON Schemas of requests and answers (https://json-schema.org/draft/2020-12)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, TypeAlias

from trimexport_runtime.inputs import required
from trimexport_runtime.manifest import Field, Manifest

from .fields import outputs, tensors

Schema: TypeAlias = dict[str, Any]
Prompts: TypeAlias = Sequence[Sequence[Field]]

ERROR: Schema = {
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {"error": {"type": "string"}, "error_type": {"type": "string"}},
}
_STRINGS: Schema = {"type": "array", "items": {"type": "string"}}


def texts(prompts: Prompts) -> Schema:
    """The body of /classify for bundles whose prompts have these fields."""
    item: Schema = {"type": "string"}
    if any(len(fields) > 1 for fields in prompts):
        by_name = {"type": "object", "additionalProperties": {"type": "string"}}
        item = {"anyOf": [item, _STRINGS, by_name]}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["texts"],
        "properties": {
            "texts": {"type": "array", "items": item, "minItems": 1},
            "truncate": {"type": "boolean", "default": False},
        },
    }


def predict(prompts: Prompts) -> Schema:
    """The body of /predict for bundles whose prompts have these fields."""
    counts = [len(required(fields)) for fields in prompts]
    together = {**_STRINGS, "minItems": 1, "maxItems": 2 if max(counts) > 1 else 1}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["inputs"],
        "properties": {
            "inputs": {
                "oneOf": [
                    {"type": "string"},
                    together,
                    {"type": "array", "minItems": 1, "items": together},
                ]
            },
            "raw_scores": {"type": "boolean", "default": False},
            "truncate": {"type": ["boolean", "null"], "default": False},
            "truncation_direction": {"enum": ["left", "right", "Left", "Right"]},
        },
    }


def infer(manifests: Sequence[Manifest]) -> Schema:
    """The body of the Open Inference Protocol for these bundles."""
    places = [manifest.prompt.places for manifest in manifests] or [(Field("text"),)]
    named = [tensors(each) for each in places]
    example = {"datatype": "BYTES", "shape": [1], "data": ["a film"]}
    return {
        "type": "object",
        "examples": [{"inputs": [{"name": name, **example} for name in named[0]]}],
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {
                "type": "array",
                "minItems": 1,
                "maxItems": max(map(len, named)),
                "items": {
                    "type": "object",
                    "required": ["name", "datatype", "shape", "data"],
                    "properties": {
                        "name": {"enum": list(dict.fromkeys(chain.from_iterable(named)))},
                        "datatype": {"const": "BYTES"},
                        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                        "data": _STRINGS,
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
                    "properties": {"name": {"enum": _outputs(manifests)}},
                },
            },
        },
    }


def inferred(manifests: Sequence[Manifest]) -> Schema:
    """The answer of that protocol."""
    return {
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
                        "name": {"enum": _outputs(manifests)},
                        "datatype": {"enum": ["BYTES", "FP64", "FP32"]},
                        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                        "data": {"type": "array", "items": {"type": ["string", "number"]}},
                    },
                },
            },
        },
    }


def _outputs(manifests: Sequence[Manifest]) -> list[str]:
    """The names of all outputs of these bundles, each once."""
    return list(dict.fromkeys(chain.from_iterable(map(outputs, manifests))))


_SHARE = {"type": "number"}  # from 0 to 1, but of a score without a sigmoid any
_LABELLED: Schema = {
    "label": {"type": "string"},
    "probability": _SHARE,
    "probabilities": {"type": "object", "additionalProperties": _SHARE},
}
_READ: Schema = {"truncated": {"type": "boolean"}, "tokens": {"type": "integer", "minimum": 0}}
_ANSWER: Schema = {
    "type": "object",
    "required": [*_LABELLED, *_READ],
    "properties": {
        **_LABELLED,
        "score": {"type": "number"},
        "labels": {"type": "array", "items": {"type": "string"}},
        **_READ,
    },
}
_ANSWERS: Schema = {  # to several questions, by their names
    "type": "object",
    "required": ["answers", *_READ],
    "properties": {
        "answers": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": list(_LABELLED),
                "properties": _LABELLED,
            },
        },
        **_READ,
    },
}
CLASSIFIED: Schema = {
    "type": "object",
    "required": ["model", "variant", "provider", "predictions"],
    "properties": {
        "model": {"type": "string"},
        "variant": {"type": "string"},
        "provider": {"type": "string"},
        "predictions": {
            "type": "array",
            "items": {"oneOf": [_ANSWER, _ANSWERS]},
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
INDEX: Schema = {
    "type": "object",
    "properties": {"ready": {"type": "boolean", "default": False}},
}
INDEXED: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name", "version", "state", "reason"],
        "properties": {
            "name": {"type": "string"},
            "version": {"type": "string"},
            "state": {"enum": ["READY", "UNAVAILABLE"]},
            "reason": {"type": "string"},
        },
    },
}
OBJECT: Schema = {"type": "object"}
