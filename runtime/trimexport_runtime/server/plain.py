"""`POST /classify`, the server's own form of requests and answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from trimexport_runtime.inputs import Input, required
from trimexport_runtime.manifest import Field
from trimexport_runtime.render import prediction_dict

from .fields import check_fields, flag
from .refusals import Refusal, shown
from .service import Classified, Model

FIELDS = ("texts", "truncate")


def read(body: Any, fields: Sequence[Field]) -> tuple[list[Input], bool]:
    """The texts that a JSON body has, and whether long ones are to be cut: strings, or where the
    prompt has several fields also lists or objects of strings.

    Raises:
        Refusal: it is not of this form.
    """
    several = len(fields) > 1
    if not isinstance(body, dict) or not isinstance(body.get("texts"), list):
        raise Refusal(
            "bad_input", f'the body must be an object with texts: {{"texts": [{_example(fields)}]}}'
        )
    check_fields(body, FIELDS, "; ?model=NAME in the path names a model")
    texts = body["texts"]
    for place, text in enumerate(texts):
        if not isinstance(text, str | list | dict if several else str):
            what = f"strings, lists or objects: {_example(fields)}" if several else "strings"
            raise Refusal("bad_input", f"text {place} is {shown(text)}; texts must be {what}")
    return texts, flag(body, "truncate")


def _example(fields: Sequence[Field]) -> str:
    """A text as a prompt with these fields takes it."""
    names = required(fields)
    if len(names) == 1:
        return '"a text"'
    return json.dumps({name: "..." for name in names}, ensure_ascii=False, allow_nan=False)


def answer(model: Model, classified: Classified) -> dict[str, Any]:
    """Predictions in the order of the texts, and what computed them."""
    manifest = model.classifier.manifest
    return {
        "model": model.name,
        "variant": model.classifier.variant.name,
        "provider": model.classifier.provider,
        "predictions": [prediction_dict(item, manifest) for item in classified.predictions],
    }
