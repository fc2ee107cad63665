"""A bundle whose prompt has several fields, in each protocol."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.conftest import Serve, Server
from trimexport_runtime import Classifier, Prediction, read_manifest
from trimexport_runtime.manifest import Field
from trimexport_runtime.server import tei
from trimexport_runtime.server.refusals import Refusal

PAIRS = [("who wrote it", "Ann, in March"), ("schön – 好", ""), ("", "dull"), ("a", "a <eos> b")]
NAMED: list[dict[str, str]] = [{"query": one, "document": other} for one, other in PAIRS]
LONG = "word " * 700


def _tensor(name: str, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [len(data)], "data": data, **more}


def _tensors(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [_tensor(name, [row[name] for row in rows]) for name in rows[0]]


def _packed(texts: list[str]) -> bytes:
    return b"".join(struct.pack("<I", len(it)) + it for it in (text.encode() for text in texts))


def _same(found: Any, expected: list[Prediction]) -> None:
    """Probabilities are those of the classifier, as far as float32 and a batch of others let."""
    rows = np.reshape(np.asarray(found, dtype=np.float64), (len(expected), -1))
    assert np.allclose(rows, [it.probabilities for it in expected], atol=1e-6)


def test_pairs_in_each_protocol(serve: Serve, pairs: Path) -> None:
    server, classifier = serve(pairs, "--log-texts"), Classifier.load(pairs)
    expected, other = classifier.classify(PAIRS), [{**it, "instruction": "never"} for it in NAMED]
    for texts, answers in (
        (PAIRS, expected), (NAMED, expected), (other, classifier.classify(other)),
    ):  # fmt: skip
        status, answer, _ = server.ask("POST", "/classify", {"texts": texts})
        assert status == 200, answer
        _same([[*it["probabilities"].values()] for it in answer["predictions"]], answers)
        assert [it["tokens"] for it in answer["predictions"]] == [it.tokens for it in answers]
    _, several, _ = server.ask("POST", "/predict", {"inputs": PAIRS})
    _same([[it["score"] for it in sorted(row, key=_by(classifier))] for row in several], expected)
    _, single, _ = server.ask("POST", "/predict", {"inputs": PAIRS[0]})
    _same([[it["score"] for it in sorted(single, key=_by(classifier))]], expected[:1])
    _in_v2(server, classifier, expected)
    logged = [line for line in server.stop()[1] if line.get("path") == "/classify"]
    assert [line["texts"] for line in logged] == [len(PAIRS)] * 3
    assert logged[1]["content"] == NAMED


def _by(classifier: Classifier) -> Any:
    return lambda it: classifier.labels.index(it["label"])


def _in_v2(server: Server, classifier: Classifier, expected: list[Prediction]) -> None:
    path = f"/v2/models/{server.name}/infer"
    _, answer, _ = server.ask("POST", path, {"inputs": _tensors(NAMED)})
    _same(answer["outputs"][1]["data"], expected)
    other = [{**it, "instruction": "never"} for it in NAMED]
    _, answer, _ = server.ask("POST", path, {"inputs": _tensors(other)})
    _same(answer["outputs"][1]["data"], classifier.classify(other))
    # one tensor as bytes, the other in the JSON, in both orders; and both as bytes
    for binary in (["query"], ["document"], ["document", "query"]):
        raw = {name: _packed([row[name] for row in NAMED]) for name in binary}
        inputs = [it for it in _tensors(NAMED) if it["name"] not in binary]
        for name, content in raw.items():
            size = {"binary_data_size": len(content)}
            inputs.append(
                {"name": name, "datatype": "BYTES", "shape": [len(NAMED), 1], "parameters": size}
            )
        head = json.dumps({"inputs": inputs}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        _, answer, _ = server.ask("POST", path, head + b"".join(raw.values()), headers)
        _same(answer["outputs"][1]["data"], expected)


QUERY, DOCUMENT = _tensor("query", ["a"]), _tensor("document", ["b"])
INFER = "/v2/models/p/infer"
REFUSED: list[tuple[str, Any, int, str]] = [
    ("/classify", {"texts": "a"}, 422, 'with texts: {"texts": [{"query": "...", "document": "..."'),
    ("/classify", {"texts": ["a"]}, 422, "text 0: this is one text, and the bundle's prompt takes"),
    ("/classify", {"texts": [["a", "b"], 7]}, 422, "text 1 is 7; texts must be strings, lists or"),
    ("/classify", {"texts": [["a"]]}, 422, "text 0: 1 texts are given together"),
    ("/classify", {"texts": [["a", 7]]}, 422, "text 0: document: a text must be a str, this is"),
    ("/classify", {"texts": [{"query": "a"}]}, 422, "text 0: the field 'document' is missing"),
    ("/classify", {"texts": [{**NAMED[0], "title": "a"}]}, 422, "has no field 'title'"),
    ("/classify", {"texts": [["a", "\ud800"]]}, 422, "text 0: document: character 0 is the lone"),
    ("/classify", {"texts": [["a", "b"]] * 9}, 422, "9 texts, at most 8 go in one request"),
    ("/classify", {"texts": [["a", LONG]]}, 413, "text 0, all its fields together, has more than"),
    ("/classify", {"texts": [["a", LONG * 9]]}, 413, "or send truncate: true to have document cut"),
    ("/classify", {"texts": [[LONG, "b"]]}, 413, "text 0: instruction and query with what the"),
    ("/classify", {"texts": [[LONG, ""]], "truncate": True}, 413, "leave no room for document"),
    ("/predict", {"texts": []}, 422, 'an object with inputs; inputs is ["a", "b"], which is one'),
    ("/predict", {"inputs": "a"}, 422, "this classifier takes two texts (query, document); inputs"),
    ("/predict", {"inputs": ["a"]}, 422, "['a'] is no pair, and this classifier takes two texts"),
    ("/predict", {"inputs": [["a", "b"], ["c"]]}, 422, "['c'] is no pair"),
    ("/predict", {"inputs": ["a", "b", "c"]}, 422, "['a', 'b', 'c'] is no pair"),
    ("/predict", {"inputs": [["a", 7]]}, 422, "inputs has ['a', 7] where a text belongs"),
    ("/predict", {"inputs": [NAMED[0]]}, 422, "where a text belongs; inputs is"),
    ("/predict", {"inputs": [LONG, "b"]}, 413, "leave no room for document"),
    (INFER, {"inputs": [QUERY]}, 422, 'for each field, once: "instruction" if wanted, "query", '),
    (INFER, {"inputs": [QUERY, DOCUMENT, QUERY]}, 422, "there must be an input for each field"),
    (INFER, {"inputs": [_tensor("text", ["a"])]}, 422, "there must be an input for each field"),
    (INFER, {"inputs": [QUERY, _tensor("document", [])]}, 422, '"query" has 1, "document" has 0'),
    (INFER, {"inputs": [QUERY, DOCUMENT | {"datatype": "FP32"}]}, 422, '"document" must be of'),
    (INFER, {"inputs": [QUERY, DOCUMENT | {"data": [1]}]}, 422, 'data of "document" must be strin'),
    (INFER, {"inputs": [_tensor("query", [LONG]), DOCUMENT]}, 413, "leave no room for document"),
]


def test_what_is_refused_of_pairs(serve: Serve, pairs: Path, bundle: Path) -> None:
    server = serve(f"p={pairs}", f"one={bundle}", "--max-texts", 8)
    for path, body, status, message in REFUSED:
        found, answer, _ = server.ask("POST", path, body)
        assert (found, message in answer["error"]) == (status, True), (path, body, answer)
    for body in ({"texts": [["a", "b"]]}, {"texts": [{"text": "a"}]}):
        _, answer, _ = server.ask("POST", "/classify?model=one", body)
        assert "texts must be strings" in answer["error"]
    status, answer, _ = server.ask("POST", "/classify", {"texts": [["a", LONG]], "truncate": True})
    limit = read_manifest(pairs).text_limit.tokens
    (found,) = answer["predictions"]
    assert (found["truncated"], found["tokens"]) == (True, limit)


def test_prompts_that_take_one_text_or_three() -> None:
    """Of text-embeddings-inference's requests the first may be any, and none fits the other."""
    one = (Field("policy", default="a"), Field("text"))
    assert tei.read({"inputs": "a"}, "end", one).texts == ["a"]
    assert tei.read({"inputs": [["a"], ["b"]]}, "end", one).texts == ["a", "b"]
    with pytest.raises(Refusal, match="this classifier takes single ones"):
        tei.read({"inputs": ["a", "b"]}, "end", one)
    three = tuple(map(Field, ("query", "document", "answer")))
    with pytest.raises(Refusal, match=r"takes 3 together \(query, document, answer\); send"):
        tei.read({"inputs": ["a", "b"]}, "end", three)


def test_what_is_said_of_the_fields(serve: Serve, pairs: Path, bundle: Path) -> None:
    server = serve(f"one={bundle}", f"p={pairs}")
    _, model, _ = server.ask("GET", "/v2/models/p")
    named = [(it["name"], it.get("optional", False)) for it in model["inputs"]]
    assert named == [("instruction", True), ("query", False), ("document", False)]
    _, info, _ = server.ask("GET", "/info")
    assert info["models"][0]["fields"] == [{"name": "text", "default": None, "cut": True}]
    assert info["models"][1]["fields"] == [
        {"name": "instruction", "default": "is it so", "cut": False},
        {"name": "query", "default": None, "cut": False},
        {"name": "document", "default": None, "cut": True},
    ]
    _, description, _ = server.ask("GET", "/openapi.json")
    schemas = {
        path: item["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
        for path, item in description["paths"].items()
        if "post" in item
    }
    kinds = [it["type"] for it in schemas["/classify"]["texts"]["items"]["anyOf"]]
    assert kinds == ["string", "array", "object"]
    assert schemas["/predict"]["inputs"]["oneOf"][1]["maxItems"] == 2
    tensor = schemas["/v2/models/{name}/infer"]["inputs"]["items"]["properties"]["name"]
    assert tensor["enum"] == ["text", "instruction", "query", "document"]
