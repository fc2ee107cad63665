"""Cohere's and OpenAI's own Python clients."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from packages import needs_wheels, run_with
from scored_bundles import pair_bundle, scored_bundle
from server.conftest import Serve
from trimexport_runtime import Classifier
from trimexport_runtime.score import INDEPENDENT, LOG_ODDS

COHERE = """
import json, sys
import cohere

address, query, documents = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
v1 = cohere.Client("key", base_url=address)
v2 = cohere.ClientV2("key", base_url=address)
objects = [{"text": it} for it in documents]
found = [
    v2.rerank(model="relevance", query=query, documents=documents),
    v1.rerank(model="relevance", query=query, documents=objects, return_documents=True),
    v1.rerank(query=query, documents=documents, top_n=2, return_documents=False),
]
for answer in found:
    print(json.dumps([[it.index, it.relevance_score] for it in answer.results]))
print(json.dumps([it.document.text for it in found[1].results]))
assert found[0].id and found[0].meta.api_version.version == "2"
assert found[2].results[0].document is None
for call, wrong in (
    (lambda: v2.rerank(model="other", query="a", documents=["a"]), cohere.NotFoundError),
    (lambda: v1.rerank(model="other", query="a", documents=["a"]), cohere.NotFoundError),
    (lambda: v2.rerank(model="relevance", query="a", documents=[]), cohere.BadRequestError),
    (
        lambda: cohere.ClientV2("wrong", base_url=address).rerank(
            model="relevance", query="a", documents=["a"]
        ),
        cohere.UnauthorizedError,
    ),
):
    try:
        call()
    except wrong as error:
        print(error.body["message"])
"""
OPENAI = """
import json, sys
import openai

address, texts = sys.argv[1], json.loads(sys.argv[2])
client = openai.OpenAI(base_url=address + "/v1", api_key="key", max_retries=0)
answers = [
    client.moderations.create(input=texts, model="harm"),
    client.moderations.create(input=texts[0]),
    client.moderations.create(input=[{"type": "text", "text": texts[0]}]),
]
for answer in answers:
    rows = [it.to_dict() for it in answer.results]
    print(json.dumps([[it["flagged"], it["categories"], it["category_scores"]] for it in rows]))
assert answers[0].id and answers[0].model == "harm"
assert isinstance(answers[0].results[0].category_scores.positive, float)
for call, wrong in (
    (lambda: client.moderations.create(input="a", model="other"), openai.NotFoundError),
    (lambda: client.moderations.create(input=[]), openai.BadRequestError),
    (
        lambda: client.with_options(api_key="x").moderations.create(input="a"),
        openai.AuthenticationError,
    ),
):
    try:
        call()
    except wrong as error:
        print(error.code, error.type, error.body["message"])
"""
DOCUMENTS = ["It was written by Ann.", "", "a dull film", "word " * 300]


def test_coheres_client(serve: Serve, tmp_path: Path) -> None:
    """Versions 1 and 2, of which one names the path that is Jina's too."""
    wheels, relevance = needs_wheels("cohere-openai"), pair_bundle(tmp_path / "r", LOG_ODDS)
    server = serve(f"relevance={relevance}", "--api-key", "key")
    query, documents = "who wrote it", DOCUMENTS
    expected = Classifier.load(relevance).classify([(query, it) for it in documents])
    address = f"http://127.0.0.1:{server.port}"
    run = run_with([wheels], "-c", COHERE, address, query, json.dumps(documents[:3]))
    assert run.returncode == 0, run.stderr
    *lists, none, none_either, empty, key = run.stdout.strip().splitlines()
    *ranks, texts = map(json.loads, lists)
    scores = [it.probabilities[0] for it in expected[:3]]
    order = sorted(range(3), key=lambda place: -scores[place])
    for found, count in zip(ranks, (3, 3, 2), strict=True):
        assert [place for place, _ in found] == order[:count]
        assert np.allclose([it for _, it in found], sorted(scores, reverse=True)[:count], atol=1e-6)
    assert texts == [documents[place] for place in order]
    assert none == none_either == 'no model "other"; there are: relevance'
    assert "documents is []" in empty
    assert "send the server's key" in key


def test_openais_client(serve: Serve, tmp_path: Path) -> None:
    """Its moderations, whose categories are here the bundle's labels."""
    wheels, harm = needs_wheels("cohere-openai"), scored_bundle(tmp_path / "h", INDEPENDENT)
    server = serve(f"harm={harm}", "--api-key", "key")
    texts = DOCUMENTS[:3]
    run = run_with([wheels], "-c", OPENAI, f"http://127.0.0.1:{server.port}", json.dumps(texts))
    assert run.returncode == 0, run.stderr
    *lists, other, empty, key = run.stdout.strip().splitlines()
    every, one, part = map(json.loads, lists)
    for (flagged, found, scores), own in zip(
        every, Classifier.load(harm).classify(texts), strict=True
    ):
        assert [name for name, true in found.items() if true] == list(own.labels)
        assert flagged == bool(own.labels)
        assert np.allclose(list(scores.values()), own.probabilities, atol=1e-6)
    assert one == part
    assert other == 'no_model invalid_request_error no model "other"; there are: harm'
    assert empty.startswith("bad_input invalid_request_error input is []")
    assert key.startswith("unauthorized invalid_request_error send the server's key")
