"""`POST /predict`, with the requests and answers of text-embeddings-inference.

https://huggingface.github.io/text-embeddings-inference
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimexport_runtime.inputs import Input, required
from trimexport_runtime.manifest import Field

from .fields import check_fields, flag
from .refusals import Refusal, shown
from .service import Classified

FIELDS = ("inputs", "raw_scores", "truncate", "truncation_direction")
_TEXTS = 'inputs is "a text", or [["a text"], ["another"]] for several'
_PAIRS = 'inputs is ["a", "b"], which is one pair of texts, or [["a", "b"], ["c", "d"]] for several'
_SIDES = {"left": "start", "Left": "start", "right": "end", "Right": "end"}  # what is cut off


@dataclass(frozen=True)
class Request:
    """A request. `single` says that `inputs` was one text or pair, which is answered by one list of
    labels; several are answered by a list of such lists."""

    texts: list[Input]
    single: bool
    raw_scores: bool
    truncate: bool


def read(body: Any, cuts: str, fields: Sequence[Field]) -> Request:
    """The request that a JSON body makes of a bundle that cuts long texts at `cuts` and whose
    prompt has these fields. Those with a default keep it.

    Raises:
        Refusal: it is not of this form, or asks for what this server does not do.
    """
    names = required(fields)
    shapes = _TEXTS if len(names) == 1 else _PAIRS
    if not isinstance(body, dict) or "inputs" not in body:
        raise Refusal("bad_input", f"the body must be an object with inputs; {shapes}")
    check_fields(body, FIELDS)
    inputs = body["inputs"]
    texts, single = _texts(inputs) if len(names) == 1 else _pairs(inputs, names)
    truncate = body.get("truncate")
    request = Request(
        texts,
        single,
        raw_scores=flag(body, "raw_scores"),
        truncate=truncate is not None and flag(body, "truncate"),
    )
    check_side(body.get("truncation_direction"), request.truncate, cuts)
    return request


def answer(request: Request, labels: tuple[str, ...], classified: Classified) -> Any:
    """Labels with their scores, the best first; of several texts a list of such lists. Where the
    graph gives one logit for each text, it is the first label's, which stands alone."""
    lists = []
    rows = zip(classified.predictions, classified.logits.tolist(), strict=True)
    for prediction, logits in rows:
        scores = logits if request.raw_scores else prediction.probabilities
        own = zip(scores[: len(logits)], labels[: len(logits)], strict=True)
        pairs = sorted(own, key=lambda pair: -pair[0])
        lists.append([{"score": score, "label": label} for score, label in pairs])
    return lists[0] if request.single else lists


def _texts(inputs: Any) -> tuple[list[Input], bool]:
    """The texts, and whether they are one that came without a batch around it."""
    if isinstance(inputs, str):
        return [inputs], True
    lists, single = _lists(inputs, _TEXTS)
    return [_alone(item) for item in lists], single


def _pairs(inputs: Any, names: Sequence[str]) -> tuple[list[Input], bool]:
    """The pairs of texts, and whether they are one that came without a batch around it."""
    together = ", ".join(names)
    if len(names) != 2:
        raise Refusal(
            "bad_input",
            f"text-embeddings-inference knows texts and pairs of texts, and this classifier takes "
            f'{len(names)} together ({together}); send {{"texts": [...]}} to /classify',
        )
    if isinstance(inputs, str):
        raise Refusal("bad_input", f"this classifier takes two texts ({together}); {_PAIRS}")
    lists, single = _lists(inputs, _PAIRS)
    for item in lists:
        if len(item) != 2:
            raise Refusal(
                "bad_input",
                f"{shown(item)} is no pair, and this classifier takes two texts ({together}); "
                f"{_PAIRS}",
            )
    return [*lists], single


def _lists(inputs: Any, shapes: str) -> tuple[list[list[str]], bool]:
    """The lists of texts that `inputs` is, and whether it is one alone."""
    if not isinstance(inputs, list) or not inputs:
        raise Refusal("bad_input", f"inputs is {shown(inputs)}; {shapes}")
    if all(isinstance(item, str) for item in inputs):
        return [inputs], True
    for item in inputs:
        if not isinstance(item, list) or not all(isinstance(text, str) for text in item):
            raise Refusal("bad_input", f"inputs has {shown(item)} where a text belongs; {shapes}")
    return inputs, False


def _alone(texts: list[str]) -> str:
    """The text of a list that is one text, and no pair of texts."""
    if len(texts) == 1:
        return texts[0]
    if len(texts) == 2:
        raise Refusal(
            "bad_input",
            "a list of two texts is one pair of texts to text-embeddings-inference, and this "
            f'classifier takes single ones; {_TEXTS}, or send {{"texts": [...]}} to /classify',
        )
    raise Refusal("bad_input", f"{len(texts)} texts are in a list where one belongs; {_TEXTS}")


def check_side(side: Any, truncate: bool, cuts: str) -> None:
    """Refuse a text to be cut at another side than the bundle cuts it, whose parity was measured
    with that."""
    if side is None:
        return
    if not isinstance(side, str) or side not in _SIDES:
        raise Refusal(
            "bad_input", f'truncation_direction is {shown(side)}; it is "left" or "right"'
        )
    if truncate and _SIDES[side] != cuts:
        raise Refusal(
            "bad_input",
            f"truncation_direction is {side}, and this bundle cuts texts at their {cuts}; leave it "
            "out, or serve a bundle that was built with the other --truncate",
        )
