"""`POST /v1/moderations`, with the requests and answers of OpenAI. Categories are labels, or
questions where there are several.

https://platform.openai.com/docs/api-reference/moderations
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimexport_runtime.manifest import Manifest
from trimexport_runtime.prediction import Prediction
from trimexport_runtime.score import INDEPENDENT, SOFTMAX

from .fields import check_fields, flag_or, text_or_none
from .refusals import Refusal, shown
from .scoring import MODEL_NAMED, json_object
from .service import Classified

FIELDS = ("model", "input", "truncate")
_FORM = '{"input": "a text"}, or a list of texts'


@dataclass(frozen=True)
class Request:
    """A request. `model` names the bundle, or is None for the first."""

    texts: list[str]
    model: str | None
    truncate: bool


def read(body: Any) -> Request:
    """The request that a JSON body makes.

    Raises:
        Refusal: it is not of this form, or has images.
    """
    given = json_object(body, _FORM)
    check_fields(given, FIELDS, MODEL_NAMED)
    model = text_or_none(given, "model")
    return Request(_texts(given.get("input")), model, flag_or(given, "truncate", False))


def answer(model: str, manifest: Manifest, classified: Classified) -> dict[str, Any]:
    """For each text, which categories it falls in and by which scores."""
    return {
        "id": f"modr-{uuid.uuid4().hex}",
        "model": model,
        "results": [_result(manifest, it) for it in classified.predictions],
    }


def _texts(given: Any) -> list[str]:
    """The texts of `input`. A list of parts is one text with, perhaps, images."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise Refusal("bad_input", f"input is {shown(given)}; send {_FORM}")
    if all(isinstance(item, str) for item in given):
        return given
    for item in given:
        if not isinstance(item, dict) or item.get("type") != "text":
            raise Refusal("bad_input", f"input has {shown(item)}; only texts are classified here")
        if not isinstance(item.get("text"), str):
            raise Refusal("bad_input", f"input has {shown(item)}, whose text is no string")
    if len(given) > 1:
        raise Refusal(
            "bad_input",
            f"a list of parts is one input, and this has {len(given)} texts; send several texts as "
            "a list of strings",
        )
    return [given[0]["text"]]


def _result(manifest: Manifest, prediction: Prediction) -> dict[str, Any]:
    """One text's categories: of independent labels all, of a score its first, and of labels that
    exclude each other all but the last, which is the harmless one. Of several questions each is
    one, and its first label the harmless one."""
    score, labels = manifest.score, manifest.label_names
    by_label = dict(zip(labels, prediction.probabilities, strict=False))
    if manifest.questions:
        harmless = {it.name: it.labels[0].name for it in manifest.questions}
        answers = prediction.answers
        names = tuple(answers)
        found = {name: answers[name].label != harmless[name] for name in names}
        by_label = {name: _harm(answers[name].probabilities) for name in names}
    elif score.kind == SOFTMAX:
        names = labels[:-1]
        found = {name: name == prediction.label for name in names}
    else:
        names = labels if score.kind == INDEPENDENT else labels[:1]
        found = {name: by_label[name] >= score.threshold for name in names}
    return {
        "flagged": any(found.values()),
        "categories": found,
        "category_scores": {name: by_label[name] for name in names},
        "category_applied_input_types": {name: ["text"] for name in names},
    }


def _harm(probabilities: Sequence[float]) -> float:
    """The probability of all labels but the first; of two labels the last's, to the bit."""
    return math.fsum(probabilities[1:])
