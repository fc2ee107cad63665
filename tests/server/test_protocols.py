"""What each protocol answers: the same as `Classifier` does offline."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from server.conftest import Serve, Server
from trimexport_runtime import Classifier

TEXTS = ["a gorgeous, witty, seductive movie", "dull", "", "two hours that feel like five"]


@pytest.fixture
def server(serve: Serve, bundle: Path) -> Server:
    return serve(bundle)


def test_the_plain_form(server: Server, bundle: Path) -> None:
    status, answer, _ = server.ask("POST", "/classify", {"texts": TEXTS})
    assert status == 200
    expected = Classifier.load(bundle).classify(TEXTS)
    for found, prediction in zip(answer["predictions"], expected, strict=True):
        assert found["label"] == prediction.label
        assert tuple(found["probabilities"].values()) == prediction.probabilities
        assert (found["tokens"], found["truncated"]) == (prediction.tokens, False)
    assert (answer["variant"], answer["provider"]) == ("fp32", "CPUExecutionProvider")


def test_int8(serve: Serve, sentiment_int8: Path) -> None:
    _, answer, _ = serve(sentiment_int8).ask("POST", "/classify", {"texts": TEXTS})
    expected = Classifier.load(sentiment_int8).classify(TEXTS)
    found = [tuple(it["probabilities"].values()) for it in answer["predictions"]]
    assert answer["variant"] == "int8"
    assert found == [it.probabilities for it in expected]


def test_text_embeddings_inference(server: Server, bundle: Path) -> None:
    status, single, _ = server.ask("POST", "/predict", {"inputs": TEXTS[1]})
    assert status == 200
    (expected,) = Classifier.load(bundle).classify(TEXTS[1:2])
    assert [it["label"] for it in single] == ["negative", "positive"]
    assert single[0]["score"] == expected.probability
    _, several, _ = server.ask("POST", "/predict", {"inputs": [[text] for text in TEXTS]})
    assert several[1] == single
    assert len(several) == len(TEXTS)
    body = {"inputs": TEXTS[1], "raw_scores": True}
    _, raw, _ = server.ask("POST", "/predict", body)
    logits = Classifier.load(bundle).logits(TEXTS[1:2])[0]
    assert [it["score"] for it in raw] == sorted(map(float, logits), reverse=True)


def test_log_odds_in_every_protocol(serve: Serve) -> None:
    """text-embeddings-inference gives a sigmoid of each output, here of the first label's."""
    bundle = tiny.odds_bundle()
    server, text = serve(bundle), TEXTS[0]
    (expected,) = Classifier.load(bundle).classify([text])
    _, answer, _ = server.ask("POST", "/predict", {"inputs": text})
    assert answer == [{"score": expected.probabilities[0], "label": "positive"}]
    _, answer, _ = server.ask("POST", "/predict", {"inputs": text, "raw_scores": True})
    assert answer == [{"score": expected.score, "label": "positive"}]
    _, answer, _ = server.ask("POST", "/classify", {"texts": [text]})
    (found,) = answer["predictions"]
    assert (found["label"], found["score"]) == (expected.label, expected.score)
    assert tuple(found["probabilities"].values()) == expected.probabilities
    asked = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}]}
    path = f"/v2/models/{server.name}"
    _, answer, _ = server.ask("POST", f"{path}/infer", asked)
    tensors = {it["name"]: it for it in answer["outputs"]}
    assert tensors["label"]["data"] == [expected.label]
    assert tensors["probabilities"]["shape"] == [1, 2]
    assert tensors["probabilities"]["data"] == pytest.approx(expected.probabilities, rel=1e-6)
    _, answer, _ = server.ask("GET", path)
    assert answer["outputs"][1]["shape"] == [-1, 2]


def test_the_shapes_of_text_embeddings_inference(server: Server) -> None:
    """A list of one text is one text, of two a pair, which no classifier of texts takes."""
    _, single, _ = server.ask("POST", "/predict", {"inputs": "dull"})
    for inputs, expected in ((["dull"], single), ([["dull"]], [single])):
        status, answer, _ = server.ask("POST", "/predict", {"inputs": inputs})
        assert (status, answer) == (200, expected)
    pair = "a list of two texts is one pair of texts to text-embeddings-inference"
    for refused, said in (
        (["a", "b"], pair),
        ([["a"], ["a", "b"]], pair),
        (["a", "b", "c"], "3 texts are in a list where one belongs"),
        ([["a"], []], "0 texts are in a list where one belongs"),
        ([["a"], "b"], "inputs has 'b' where a text belongs"),
        (["a", ["b"]], "inputs has 'a' where a text belongs"),
        ([["a", 1]], "inputs has ['a', 1] where a text belongs"),
        ([], "inputs is []"),
        (None, "inputs is None"),
    ):
        status, answer, _ = server.ask("POST", "/predict", {"inputs": refused})
        assert (status, answer["error_type"]) == (422, "bad_input")
        assert said in answer["error"]


def test_the_fields_of_text_embeddings_inference(
    server: Server, serve: Serve, tiny_bundle_copy: Path
) -> None:
    """Each is honoured or refused."""

    def keep_the_end(raw: dict[str, Any]) -> None:
        raw["text_limit"]["truncate"] = "start"

    long = {"inputs": "word " * 700}
    for fields in (
        {"truncate": True},
        {"truncate": True, "truncation_direction": "right"},
        {"truncate": True, "truncation_direction": "Right", "parameters": {}},
    ):
        assert server.ask("POST", "/predict", long | fields)[0] == 200
    short = {"inputs": "dull", "truncation_direction": "left", "truncate": None}
    assert server.ask("POST", "/predict", short)[0] == 200, "nothing is cut"
    assert server.ask("POST", "/predict", long | {"truncate": None})[0] == 413
    for refused, said in (
        ({"truncate": True, "truncation_direction": "left"}, "this bundle cuts texts at their end"),
        ({"truncation_direction": "up"}, "truncation_direction is 'up'; it is \"left\" or"),
        ({"truncation_direction": ["left"]}, "truncation_direction is ['left']"),
        ({"raw_scores": None}, "raw_scores is None; it must be true or false"),
        ({"parameters": {"top_k": 1}}, "there is no field 'parameters' here; there are: inputs,"),
        ({"truncat": True}, "there is no field 'truncat' here"),
    ):
        status, answer, _ = server.ask("POST", "/predict", long | refused)
        assert (status, answer["error_type"]) == (422, "bad_input")
        assert said in answer["error"]
    tiny.edit_json(tiny_bundle_copy / "trimexport.json", keep_the_end)
    other = serve(tiny_bundle_copy)
    cut = {"inputs": "word " * 700, "truncate": True, "truncation_direction": "Left"}
    assert other.ask("POST", "/predict", cut)[0] == 200
    status, answer, _ = other.ask("POST", "/predict", cut | {"truncation_direction": "right"})
    assert (status, "this bundle cuts texts at their start" in answer["error"]) == (422, True)


def test_the_open_inference_protocol_in_json(server: Server, bundle: Path) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}
    path = f"/v2/models/{server.name}/infer"
    status, answer, _ = server.ask("POST", path, {"id": "7", "inputs": [tensor]})
    assert (status, answer["id"], answer["model_name"]) == (200, "7", server.name)
    label, probabilities = answer["outputs"]
    expected = Classifier.load(bundle).classify(TEXTS)
    assert label["data"] == [it.label for it in expected]
    assert probabilities["shape"] == [len(TEXTS), 2]
    rows = np.reshape(probabilities["data"], (-1, 2))
    assert np.allclose(rows, [it.probabilities for it in expected], atol=1e-6)
    one = {"inputs": [tensor], "outputs": [{"name": "label"}]}
    _, answer, _ = server.ask("POST", path, one)
    assert [it["name"] for it in answer["outputs"]] == ["label"]


def test_binary_tensors(server: Server, bundle: Path) -> None:
    raw = b"".join(struct.pack("<I", len(it)) + it for it in (text.encode() for text in TEXTS))
    tensor = {
        "name": "text",
        "datatype": "BYTES",
        "shape": [len(TEXTS), 1],
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    path = f"/v2/models/{server.name}/versions/1/infer"
    status, content, found = server.ask("POST", path, head + raw, headers)
    assert (status, found["content-type"]) == (200, "application/octet-stream")
    size = int(found["inference-header-content-length"])
    label, probabilities = json.loads(content[:size])["outputs"]
    sizes = [it["parameters"]["binary_data_size"] for it in (label, probabilities)]
    assert sum(sizes) == len(content) - size
    rows = np.frombuffer(content[-sizes[1] :], dtype="<f4").reshape(probabilities["shape"])
    expected = [it.probabilities for it in Classifier.load(bundle).classify(TEXTS)]
    assert np.allclose(rows, expected, atol=1e-6)


def test_metadata(server: Server) -> None:
    _, about, _ = server.ask("GET", "/v2")
    assert about["extensions"] == ["binary_tensor_data"]
    _, model, _ = server.ask("GET", f"/v2/models/{server.name}")
    assert [it["name"] for it in model["inputs"]] == ["text"]
    assert [it["shape"] for it in model["outputs"]] == [[-1], [-1, 2]]
    for path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{server.name}/ready"):
        assert server.ask("GET", path)[0] == 200
    _, info, _ = server.ask("GET", "/info")
    assert info["models"][0]["labels"] == ["positive", "negative"]
    assert info["models"][0]["outside_tolerance"] is False
    assert info["models"][0]["taken_over"] is None
    _, description, _ = server.ask("GET", "/openapi.json")
    assert "/predict" in description["paths"]


def test_what_the_manifest_says_of_a_variant(serve: Serve, tiny_bundle_copy: Path) -> None:
    """That it is outside its tolerance, and what it took over."""
    taken = {"matrices": 6, "of": 7, "embedding": True}

    def mark(raw: dict[str, Any]) -> None:
        raw["variants"][0] |= {"outside_tolerance": True, "taken_over": taken}

    tiny.edit_json(tiny_bundle_copy / "trimexport.json", mark)
    _, info, _ = serve(tiny_bundle_copy).ask("GET", "/info")
    assert info["models"][0]["outside_tolerance"] is True
    assert info["models"][0]["taken_over"] == taken


def test_several_bundles(serve: Serve, bundle: Path, tiny_bundle: Path) -> None:
    server = serve(f"reviews={bundle}", f"tiny={tiny_bundle}")
    _, first, _ = server.ask("POST", "/classify", {"texts": ["dull"]})
    assert first["model"] == "reviews"
    _, other, _ = server.ask("POST", "/classify?model=tiny", {"texts": ["dull"]})
    assert other["model"] == "tiny"
    assert server.ask("GET", "/v2/models/tiny")[0] == 200
    status, answer, _ = server.ask("POST", "/classify?model=none", {"texts": ["dull"]})
    assert (status, answer["error"]) == (404, 'no model "none"; there are: reviews, tiny')


def test_the_metrics(server: Server) -> None:
    server.ask("POST", "/classify", {"texts": TEXTS})
    server.ask("POST", "/classify", {"texts": 1})
    text = server.ask("GET", "/metrics")[1].decode()
    for line in (
        'trimexport_requests_total{route="/classify",status="200"} 1.0',
        'trimexport_errors_total{kind="bad_input"} 1.0',
        f'trimexport_texts_total{{model="{server.name}"}} 4.0',
        f'trimexport_queue_tokens{{model="{server.name}"}} 0.0',
        'trimexport_request_seconds_count{stage="queue"} 1.0',
        'trimexport_request_seconds_count{stage="tokenise"} 1.0',
        'trimexport_request_seconds_count{stage="model"} 1.0',
    ):
        assert line in text
