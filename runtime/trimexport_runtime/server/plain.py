"""`POST /classify`, the server's own form of requests and answers."""

from __future__ import annotations

from typing import Any

from trimexport_runtime.render import prediction_dict

from .fields import check_fields, flag
from .refusals import Refusal, shown
from .service import Classified, Model

FIELDS = ("texts", "truncate")


def read(body: Any) -> tuple[list[str], bool]:
    """The texts that a JSON body has, and whether long ones are to be cut.

    Raises:
        Refusal: it is not of this form.
    """
    if not isinstance(body, dict) or not isinstance(body.get("texts"), list):
        raise Refusal("bad_input", 'the body must be an object with texts: {"texts": ["a text"]}')
    check_fields(body, FIELDS, "; ?model=NAME in the path names a model")
    texts = body["texts"]
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise Refusal("bad_input", f"text {place} is {shown(text)}; texts must be strings")
    return texts, flag(body, "truncate")


def answer(model: Model, classified: Classified) -> dict[str, Any]:
    """Predictions in the order of the texts, and what computed them."""
    labels, score = model.classifier.labels, model.classifier.manifest.score
    return {
        "model": model.name,
        "variant": model.classifier.variant.name,
        "provider": model.classifier.provider,
        "predictions": [prediction_dict(item, labels, score) for item in classified.predictions],
    }
