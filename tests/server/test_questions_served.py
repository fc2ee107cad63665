"""A bundle that asks several questions, in each protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.conftest import Server, serving
from tiny import TEXTS
from trimexport_runtime import Classifier, Prediction

LABELS = {"spam": ["no", "yes"], "mood": ["bad", "fair", "good"]}
FLAT = [f"{name}: {label}" for name, labels in LABELS.items() for label in labels]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, questions: Path) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("questions")) as start:
        yield start(questions)


@pytest.fixture(scope="module")
def expected(questions: Path) -> list[Prediction]:
    return Classifier.load(questions).classify(TEXTS)


def close(found: Any, shares: Any) -> bool:
    """Whether numbers are the same, as far as float32 and a batch of others let them be."""
    return np.allclose(np.ravel(found), np.ravel(shares), atol=1e-6)


def test_the_plain_form(server: Server, expected: list[Prediction]) -> None:
    status, answer, _ = server.ask("POST", "/classify", {"texts": TEXTS})
    assert status == 200, answer
    for found, own in zip(answer["predictions"], expected, strict=True):
        assert found.keys() == {"answers", "truncated", "tokens"}
        assert list(found["answers"]) == list(LABELS)
        for name, it in found["answers"].items():
            assert it["label"] == own.answers[name].label
            assert list(it["probabilities"]) == LABELS[name]
            assert close([*it["probabilities"].values()], own.answers[name].probabilities)


def test_text_embeddings_inference(server: Server, expected: list[Prediction]) -> None:
    """Every label of every question with its score, the highest first."""
    _, answer, _ = server.ask("POST", "/predict", {"inputs": [[text] for text in TEXTS]})
    for found, own in zip(answer, expected, strict=True):
        scores = [it["score"] for it in found]
        assert scores == sorted(scores, reverse=True)
        by_label = {it["label"]: it["score"] for it in found}
        assert close([by_label[label] for label in FLAT], own.probabilities)


def infer(server: Server, *outputs: str) -> tuple[int, Any]:
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}]
    body = {"inputs": inputs, "outputs": [{"name": name} for name in outputs]}
    return server.ask("POST", f"/v2/models/{server.name}/infer", body)[:2]


def test_the_open_inference_protocol(server: Server, expected: list[Prediction]) -> None:
    _, about, _ = server.ask("GET", f"/v2/models/{server.name}")
    assert about["outputs"] == [
        {"name": "spam", "datatype": "BYTES", "shape": [-1]},
        {"name": "spam_probabilities", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "mood", "datatype": "BYTES", "shape": [-1]},
        {"name": "mood_probabilities", "datatype": "FP32", "shape": [-1, 3]},
    ]
    status, answer = infer(server)
    assert status == 200, answer
    found = {it["name"]: it for it in answer["outputs"]}
    assert list(found) == [it["name"] for it in about["outputs"]]
    for name, labels in LABELS.items():
        assert found[name]["data"] == [it.answers[name].label for it in expected]
        shares = found[f"{name}_probabilities"]
        assert shares["shape"] == [len(TEXTS), len(labels)]
        assert close(shares["data"], [it.answers[name].probabilities for it in expected])
    _, answer = infer(server, "mood")
    assert [it["name"] for it in answer["outputs"]] == ["mood"]


def test_an_output_of_another_name(server: Server) -> None:
    for name in ("label", "tone"):
        status, answer = infer(server, name)
        assert (status, answer["error"]) == (
            422,
            "outputs must be named, of spam, spam_probabilities, mood, mood_probabilities",
        )


def test_moderations_have_the_questions_as_categories(
    server: Server, expected: list[Prediction]
) -> None:
    """A question's first label is the harmless one."""
    status, answer, _ = server.ask("POST", "/v1/moderations", {"input": TEXTS})
    assert status == 200, answer
    for found, own in zip(answer["results"], expected, strict=True):
        spam, mood = own.answers["spam"], own.answers["mood"]
        assert found["categories"] == {"spam": spam.label == "yes", "mood": mood.label != "bad"}
        assert found["flagged"] == any(found["categories"].values())
        scores = found["category_scores"]
        assert list(scores) == ["spam", "mood"]
        assert close([*scores.values()], [spam.probabilities[1], sum(mood.probabilities[1:])])
        assert found["category_applied_input_types"] == {"spam": ["text"], "mood": ["text"]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"query": "a", "texts": ["b"]}),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}),
        ("/v2/rerank", {"query": "a", "documents": ["b"]}),
        ("/score", {"queries": "a", "documents": ["b"]}),
    ],
)
def test_questions_do_not_rank(server: Server, path: str, body: dict[str, Any]) -> None:
    status, answer, _ = server.ask("POST", path, body)
    assert status == 400
    assert "this bundle asks 2 questions of a text, so none of its answers" in json.dumps(answer)


def test_what_is_said_of_the_bundle(server: Server) -> None:
    _, about, _ = server.ask("GET", "/info")
    assert about["models"][0]["labels"] == FLAT
    assert about["models"][0]["questions"] == [
        {"name": "spam", "text": "Does it advertise?", "labels": LABELS["spam"]},
        {"name": "mood", "text": "How is it?", "labels": LABELS["mood"]},
    ]
    _, described, _ = server.ask("GET", "/openapi.json")
    paths = described["paths"]
    infer = paths["/v2/models/{name}/infer"]["post"]
    body = infer["requestBody"]["content"]["application/json"]["schema"]["properties"]
    names = ["spam", "spam_probabilities", "mood", "mood_probabilities"]
    assert body["outputs"]["items"]["properties"]["name"]["enum"] == names
    assert "answers" in json.dumps(paths["/classify"]["post"]["responses"]["200"])
