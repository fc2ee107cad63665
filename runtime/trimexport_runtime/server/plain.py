"""`POST /classify`, the server's own form of requests and answers."""

from __future__ import annotations

from typing import Any

from trimexport_runtime.render import prediction_dict

from .refusals import Refusal
from .service import Classified, Model


def read(body: Any) -> tuple[list[str], bool]:
    """The texts that a JSON body has, and whether long ones are to be cut.

    Raises:
        Refusal: it is not of this form.
    """
    if not isinstance(body, dict) or not isinstance(body.get("texts"), list):
        raise Refusal("bad_input", 'the body must be an object with texts: {"texts": ["a text"]}')
    texts, truncate = body["texts"], body.get("truncate", False)
    if not all(isinstance(text, str) for text in texts):
        raise Refusal("bad_input", "texts must be a list of strings")
    if not isinstance(truncate, bool):
        raise Refusal("bad_input", f"truncate is {truncate!r}; it must be true or false")
    return texts, truncate


def answer(model: Model, classified: Classified) -> dict[str, Any]:
    """Predictions in the order of the texts, and what computed them."""
    labels = model.classifier.labels
    return {
        "model": model.name,
        "variant": model.classifier.variant.name,
        "provider": model.classifier.provider,
        "predictions": [prediction_dict(item, labels) for item in classified.predictions],
    }
