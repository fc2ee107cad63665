"""The requests and answers of the Open Inference Protocol, version 2, with binary tensors.

https://github.com/open-inference/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import itertools
import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimexport_runtime.inputs import Input, problem_of
from trimexport_runtime.manifest import Field

from .body import parse
from .fields import flag, tensors
from .refusals import Refusal, shown
from .service import Classified, Model

UNKNOWN = ("classification", "shared_memory_region")  # parameters that change what a tensor is
OUTPUTS = ("label", "probabilities")
HEADER = "inference-header-content-length"


@dataclass(frozen=True)
class Request:
    """A request. `outputs` names the tensors that are asked for, and `binary` those of them that
    are wanted as bytes behind the JSON."""

    id: str | None
    texts: list[Input]
    truncate: bool
    outputs: tuple[str, ...]
    binary: frozenset[str]


@dataclass(frozen=True)
class Reply:
    """The body of an answer. `header` is the JSON's length in bytes if binary tensors stand behind
    it, else None."""

    body: bytes
    header: int | None


def server_metadata(version: str) -> dict[str, Any]:
    """`GET /v2`."""
    return {"name": "trimexport", "version": version, "extensions": ["binary_tensor_data"]}


def model_metadata(model: Model) -> dict[str, Any]:
    """`GET /v2/models/NAME`."""
    labels, fields = len(model.classifier.labels), model.classifier.manifest.prompt.places
    return {
        "name": model.name,
        "versions": ["1"],
        "platform": "trimexport",
        "inputs": [_about(*item) for item in tensors(fields).items()],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, labels]},
        ],
    }


def _about(name: str, field: Field) -> dict[str, Any]:
    """A field's tensor in the metadata; `optional` is Triton's word in a model's configuration."""
    tensor: dict[str, Any] = {"name": name, "datatype": "BYTES", "shape": [-1]}
    return tensor if field.default is None else {**tensor, "optional": True}


def read(body: bytes, header: str | None, fields: Sequence[Field]) -> Request:
    """The request in a body to a bundle whose prompt has these fields. Its first `header` bytes are
    JSON where that is given.

    Raises:
        Refusal: it is not of this protocol, or of an input that the bundle does not have.
    """
    length = len(body) if header is None else _length(header, len(body))
    asked = parse(body[:length])
    if not isinstance(asked, dict) or not isinstance(asked.get("inputs"), list):
        raise Refusal("bad_input", "the body must be an object with a list of inputs")
    parameters = _object(asked, "parameters")
    names, binary = _outputs(asked, flag(parameters, "binary_data_output"))
    name = asked.get("id")
    if name is not None and problem_of(name):
        raise Refusal("bad_input", "id must be a string of characters")
    return Request(
        id=name,
        texts=_inputs(asked["inputs"], body[length:], fields),
        truncate=flag(parameters, "truncate"),
        outputs=names,
        binary=binary,
    )


def answer(request: Request, model: Model, classified: Classified) -> Reply:
    """The outputs that were asked for."""
    labels = [prediction.label for prediction in classified.predictions]
    shares = [prediction.probabilities for prediction in classified.predictions]
    rows = np.array(shares, dtype="<f4")
    made: dict[str, tuple[str, list[int], Any, bytes]] = {
        "label": ("BYTES", [len(labels)], labels, _packed(labels)),
        "probabilities": ("FP32", list(rows.shape), rows.ravel().tolist(), rows.tobytes()),
    }
    outputs, behind = [], b""
    for name in request.outputs:
        kind, shape, data, raw = made[name]
        output: dict[str, Any] = {"name": name, "datatype": kind, "shape": shape}
        if name in request.binary:
            output["parameters"] = {"binary_data_size": len(raw)}
            behind += raw
        else:
            output["data"] = data
        outputs.append(output)
    value: dict[str, Any] = {"model_name": model.name, "model_version": "1", "outputs": outputs}
    if request.id is not None:
        value["id"] = request.id
    head = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return Reply(head + behind, len(head) if request.binary else None)


def _length(header: str, size: int) -> int:
    length = int(header) if re.fullmatch("[0-9]{1,20}", header) else -1
    if not 0 <= length <= size:
        raise Refusal(
            "bad_input",
            f"Inference-Header-Content-Length is {shown(header)} of a body of {size} bytes",
        )
    return length


def _object(value: dict[str, Any], name: str) -> dict[str, Any]:
    inner = value.get(name)
    if inner is None:
        return {}
    if not isinstance(inner, dict):
        raise Refusal("bad_input", f"{name} must be an object")
    return inner


def _outputs(asked: dict[str, Any], binary: bool) -> tuple[tuple[str, ...], frozenset[str]]:
    """The names of the outputs that are wanted (all, unless some are named), and of those of them
    that are wanted as bytes. `binary` holds for an output that does not say."""
    wanted = asked.get("outputs")
    if wanted is None or wanted == []:
        wanted = [{"name": name} for name in OUTPUTS]
    if not isinstance(wanted, list) or not all(
        isinstance(output, dict) and output.get("name") in OUTPUTS for output in wanted
    ):
        raise Refusal("bad_input", f"outputs must be named, of {', '.join(OUTPUTS)}")
    names = tuple(dict.fromkeys(output["name"] for output in wanted))
    as_bytes = set()
    for output in wanted:
        parameters = {"binary_data": binary} | _object(output, "parameters")
        _check_extensions(parameters)
        if flag(parameters, "binary_data"):
            as_bytes.add(output["name"])
    return names, frozenset(as_bytes)


def _check_extensions(parameters: dict[str, Any]) -> None:
    """Refuse a tensor's parameters that ask for its content to be another or elsewhere."""
    for name in UNKNOWN:
        if name in parameters:
            raise Refusal(
                "bad_input", f"{name} belongs to an extension that this server lacks; leave it out"
            )


def _inputs(listed: list[Any], behind: bytes, fields: Sequence[Field]) -> list[Input]:
    """The inputs of a bundle's prompt that tensors hold, one for each field that is given; of those
    that are binary, the bytes stand in `behind` in their order."""
    by_name = _named(listed, fields)
    sizes = {name: _binary_size(name, tensor) for name, tensor in by_name.items()}
    if (total := sum(size or 0 for size in sizes.values())) != len(behind):
        raise Refusal(
            "bad_input",
            f"binary_data_size is {total}, and {len(behind)} bytes stand behind the JSON",
        )
    texts, start = {}, 0
    for name, tensor in by_name.items():
        size = sizes[name]
        end = start + (size or 0)
        texts[name] = _texts(name, tensor, None if size is None else behind[start:end])
        start = end
    counts = {name: len(items) for name, items in texts.items()}
    if len(set(counts.values())) > 1:
        each = ", ".join(f'"{name}" has {count}' for name, count in counts.items())
        raise Refusal("bad_input", f"the inputs must have equally many texts; {each}")
    if len(fields) == 1:
        return list(*texts.values())
    return [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]


def _named(listed: list[Any], fields: Sequence[Field]) -> dict[str, dict[str, Any]]:
    """The tensors by their names, in the request's order: one for each field that has no default,
    and perhaps one for others."""
    names = list(tensors(fields))
    needed = {name for name, field in tensors(fields).items() if field.default is None}
    given = [str(item.get("name")) for item in listed if isinstance(item, dict)]
    once = len(set(given)) == len(listed)
    if not (once and needed <= set(given) <= set(names)):
        if len(names) == 1:
            raise Refusal("bad_input", f'there must be one input, named "{names[0]}"')
        each = ", ".join(f'"{name}"{" if wanted" * (name not in needed)}' for name in names)
        raise Refusal("bad_input", f"there must be an input for each field, once: {each}")
    return dict(zip(given, listed, strict=True))


def _binary_size(name: str, tensor: dict[str, Any]) -> int | None:
    """How many bytes of a BYTES tensor stand behind the JSON; None if it is in the JSON."""
    if tensor.get("datatype") != "BYTES":
        raise Refusal("bad_input", f'the input "{name}" must be of datatype BYTES')
    parameters = _object(tensor, "parameters")
    _check_extensions(parameters)
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise Refusal("bad_input", f"binary_data_size is {shown(size)}; it is a number of bytes")
    if "data" in tensor:
        raise Refusal("bad_input", f'"{name}" has data and binary_data_size; send one of them')
    return size


def _texts(name: str, tensor: dict[str, Any], raw: bytes | None) -> list[str]:
    """The texts of a tensor of shape [n] or [n, 1], which are in its JSON or in `raw`."""
    texts = _listed(name, tensor.get("data")) if raw is None else _unpacked(raw)
    count, shape = len(texts), tensor.get("shape")
    if shape not in ([count], [count, 1]) or not all(type(extent) is int for extent in shape):
        raise Refusal("bad_input", f"the shape of {count} texts is [{count}], not {shown(shape)}")
    return texts


def _listed(name: str, data: Any) -> list[str]:
    """The strings of a JSON list, or of a list of lists."""
    rows: list[Any] = data if isinstance(data, list) else [None]
    lists = [row if isinstance(row, list) else [row] for row in rows]
    texts: list[Any] = list(itertools.chain.from_iterable(lists))
    if not all(isinstance(text, str) for text in texts):
        raise Refusal("bad_input", f'the data of "{name}" must be strings')
    return texts


def _packed(texts: Sequence[str]) -> bytes:
    """A binary tensor of strings: each in UTF-8 behind its length, 4 bytes, little-endian."""
    encoded = [text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(raw)) + raw for raw in encoded)


def _unpacked(raw: bytes) -> list[str]:
    """The strings of such a tensor."""
    texts: list[str] = []
    start = 0
    while start < len(raw):
        (length,) = struct.unpack_from("<I", raw.ljust(start + 4, b"\0"), start)
        start += 4
        if start + length > len(raw):
            raise Refusal("bad_input", "a string of the binary tensor is longer than its data")
        try:
            texts.append(raw[start : start + length].decode())
        except UnicodeDecodeError as error:
            raise Refusal("bad_input", f"text {len(texts)} is not UTF-8: {error}") from None
        start += length
    return texts
