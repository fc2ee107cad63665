"""`POST /predict`, with the requests and answers of text-embeddings-inference.

https://huggingface.github.io/text-embeddings-inference
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .refusals import Refusal
from .service import Classified

_SHAPES = 'inputs is "a text", or [["a text"], ["another"]] for several'


@dataclass(frozen=True)
class Request:
    """A request. `single` says that `inputs` was one text, which is answered by one list of labels;
    several texts are answered by a list of such lists."""

    texts: list[str]
    single: bool
    raw_scores: bool
    truncate: bool


def read(body: Any) -> Request:
    """The request that a JSON body makes.

    Raises:
        Refusal: it is not of this form.
    """
    if not isinstance(body, dict) or "inputs" not in body:
        raise Refusal("bad_input", f"the body must be an object with inputs; {_SHAPES}")
    inputs = body["inputs"]
    flags = [_flag(body, name) for name in ("raw_scores", "truncate")]
    if isinstance(inputs, str):
        return Request([inputs], True, *flags)
    if not isinstance(inputs, list) or not inputs:
        raise Refusal("bad_input", _SHAPES)
    if all(isinstance(item, str) for item in inputs):
        raise Refusal(
            "bad_input",
            "a list of texts is one pair of texts to text-embeddings-inference, and this "
            f'classifier takes single ones; {_SHAPES}, or send {{"texts": [...]}} to /classify',
        )
    if not all(
        isinstance(item, list) and len(item) == 1 and isinstance(item[0], str) for item in inputs
    ):
        raise Refusal("bad_input", f"each of inputs must be a list of one text; {_SHAPES}")
    return Request([item[0] for item in inputs], False, *flags)


def answer(request: Request, labels: tuple[str, ...], classified: Classified) -> Any:
    """Labels with their scores, the best first; of several texts a list of such lists."""
    lists = []
    rows = zip(classified.predictions, classified.logits.tolist(), strict=True)
    for prediction, logits in rows:
        scores = logits if request.raw_scores else prediction.probabilities
        pairs = sorted(zip(scores, labels, strict=True), key=lambda pair: -pair[0])
        lists.append([{"score": score, "label": label} for score, label in pairs])
    return lists[0] if request.single else lists


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise Refusal("bad_input", f"{name} is {value!r}; it must be true or false")
    return value
