"""Documents ranked, pairs scored and texts moderated, in each dialect that asks for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from scored_bundles import DEFAULT, pair_bundle, scored_bundle
from server.conftest import Serve, Server, serving
from trimexport_runtime import Classifier
from trimexport_runtime.score import INDEPENDENT, LOG_ODDS, LOGIT, SOFTMAX

QUERY = "who wrote it"
DOCUMENTS = ["It was written by Ann.", "", "a dull film", "schön – 好", "a dull film"]
LONG = "word " * 300
MOST = 1000


@dataclass(frozen=True)
class Dialect:
    """A route that scores: the names of its fields, and what it says where.

    `texts` is the documents' field, `error` where a refusal's sentence is, and `bad` and `long` the
    statuses of a bad request and of a text that is too long.
    """

    path: str
    query: str
    texts: str
    error: tuple[str, ...]
    bad: int = 400
    long: int = 400

    def body(self, documents: list[Any], query: str = QUERY, **more: Any) -> dict[str, Any]:
        return {self.query: query, self.texts: documents, **more}

    def said(self, answer: Any) -> str:
        for name in self.error:
            answer = answer[name]
        return str(answer)

    def scores(self, answer: Any, documents: int) -> list[float]:
        """The scores of an answer, in the order of the documents, each of which has one."""
        rows = answer if isinstance(answer, list) else answer.get("results") or answer["data"]
        name = "relevance_score" if "relevance_score" in rows[0] else "score"
        by_place = {row["index"]: row[name] for row in rows}
        if self.path not in ("/score", "/v1/score"):
            found = list(by_place.values())
            assert found == sorted(found, reverse=True)
        return [by_place[place] for place in range(documents)]


TEI = Dialect("/rerank", "query", "texts", ("error",), bad=422, long=413)
JINA = Dialect("/v1/rerank", "query", "documents", ("error", "message"))
COHERE = Dialect("/v2/rerank", "query", "documents", ("message",))
VLLM = Dialect("/score", "queries", "documents", ("error", "message"))
VLLM_1 = Dialect("/v1/score", "text_1", "text_2", ("error", "message"))
DIALECTS = (TEI, JINA, COHERE, VLLM, VLLM_1)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of all kinds, by the names that they are served under."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "relevance": pair_bundle(folder / "relevance", LOG_ODDS),
        "softmax": pair_bundle(folder / "softmax", SOFTMAX),
        "number": pair_bundle(folder / "number", LOGIT, sigmoid=False),
        "flags": pair_bundle(folder / "flags", INDEPENDENT),
        "text": tiny.tiny_bundle(),
        "harm": scored_bundle(folder / "harm", LOG_ODDS, threshold=0.9),
        "one": scored_bundle(folder / "one", LOGIT),
        "several": scored_bundle(folder / "several", INDEPENDENT, threshold=0.3),
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, Path]) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as start:
        named = (f"{name}={path}" for name, path in bundles.items())
        yield start(*named, "--max-texts", MOST, "--cors-origin", "*", "--api-key", "k")


def ask(server: Server, path: str, body: Any) -> tuple[int, Any]:
    status, answer, headers = server.ask("POST", path, body, {"Authorization": "Bearer k"})
    assert headers["access-control-allow-origin"] == "*"
    return status, answer


@pytest.mark.parametrize("name", ["relevance", "softmax", "number"])
def test_the_scores_are_the_runtimes(server: Server, bundles: dict[str, Path], name: str) -> None:
    """Whatever the dialect: the first label's probability or the number, and before a sigmoid the
    logit or the log-odds."""
    classifier, pairs = Classifier.load(bundles[name]), [(QUERY, it) for it in DOCUMENTS]
    expected = [it.probabilities[0] for it in classifier.classify(pairs)]
    logits = classifier.logits(pairs).astype(np.float64)
    raw = logits[:, 0] - (logits[:, 1] if name == "softmax" else 0)
    for dialect in DIALECTS:
        path = f"{dialect.path}?model={name}"
        status, answer = ask(server, path, dialect.body(DOCUMENTS))
        assert status == 200
        assert np.allclose(dialect.scores(answer, 5), expected, atol=1e-6), dialect
    for dialect in (TEI, JINA, VLLM):
        more = {"raw_scores": True} if dialect is TEI else {"use_activation": False}
        _, answer = ask(server, f"{dialect.path}?model={name}", dialect.body(DOCUMENTS, **more))
        assert np.allclose(dialect.scores(answer, 5), raw, atol=1e-5)


def test_the_answers_of_each_dialect(server: Server) -> None:
    """All that is in them, but for identities and scores."""
    documents = DOCUMENTS[:2]
    _, ranks = ask(server, "/rerank", TEI.body(documents, return_text=True))
    assert [set(it) for it in ranks] == [{"index", "score", "text"}] * 2
    assert all(it["text"] == documents[it["index"]] for it in ranks)
    _, ranks = ask(server, "/rerank", TEI.body(documents))
    assert [set(it) for it in ranks] == [{"index", "score"}] * 2
    _, answer = ask(server, "/v1/rerank", JINA.body(documents))
    assert (set(answer), answer["model"]) == ({"id", "model", "usage", "results"}, "relevance")
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 10
    assert {it["document"]["text"] for it in answer["results"]} == set(documents)
    _, cohere = ask(server, "/v2/rerank", COHERE.body(documents))
    assert set(cohere) == {"id", "results", "meta"}
    assert cohere["meta"]["tokens"]["input_tokens"] == answer["usage"]["prompt_tokens"]
    assert [set(it) for it in cohere["results"]] == [{"index", "relevance_score"}] * 2
    _, scores = ask(server, "/score", VLLM.body(documents))
    assert set(scores) == {"id", "object", "created", "model", "data", "usage"}
    assert [(it["index"], it["object"]) for it in scores["data"]] == [(0, "score"), (1, "score")]
    assert scores["usage"] == answer["usage"]


def test_how_many_and_which_documents(server: Server) -> None:
    _, every = ask(server, "/v2/rerank", COHERE.body(DOCUMENTS))
    given = [{"text": DOCUMENTS[0], "title": "t"}, *DOCUMENTS[1:]]
    for dialect in (JINA, COHERE):
        for top, count in ((1, 1), (4, 4), (99, 5), (None, 5)):
            body = dialect.body(given, top_n=top, return_documents=True)
            status, answer = ask(server, dialect.path, body)
            assert (status, len(answer["results"])) == (200, count)
            for found, expected in zip(answer["results"], every["results"], strict=False):
                document = {"text": DOCUMENTS[expected["index"]]}
                assert found == {**expected, "document": document}
        _, answer = ask(server, dialect.path, dialect.body(given, return_documents=False))
        assert answer["results"] == every["results"], "equal scores are in the documents' order"


def test_one_query_for_all_or_one_for_each(server: Server, bundles: dict[str, Path]) -> None:
    pairs = [("who", "Ann"), ("when", "In May.")]
    expected = [it.probabilities[0] for it in Classifier.load(bundles["relevance"]).classify(pairs)]
    for names in (("queries", "documents"), ("text_1", "text_2")):
        body = dict(zip(names, map(list, zip(*pairs, strict=True)), strict=True))
        for path, asked, count in (
            ("/score", body, 2),
            ("/v1/score", dict(zip(names, pairs[0], strict=True)), 1),
        ):
            _, answer = ask(server, path, asked)
            assert np.allclose(VLLM.scores(answer, count), expected[:count], atol=1e-6)
    for body, said in (
        ({"queries": ["a", "b"], "documents": "c"}, "2 queries are given with 1 documents"),
        ({"queries": ["a", "b"], "documents": ["c"] * 3}, "2 queries are given with 3 documents"),
        ({"queries": "a", "text_2": "b"}, "send one form of queries and documents"),
        ({}, "send one form of queries and documents"),
        ({"queries": "a"}, "documents is None"),
        ({"queries": [], "documents": "a"}, "queries is []"),
        ({"queries": [1], "documents": "a"}, "queries is [1]"),
    ):
        status, answer = ask(server, "/score", body)
        assert (status, said in VLLM.said(answer)) == (400, True), answer


def test_an_instruction(server: Server, bundles: dict[str, Path]) -> None:
    """It stands in the place of the default, as characters, whatever control tokens it names."""
    classifier = Classifier.load(bundles["relevance"])
    scores = set()
    for instruction in (DEFAULT, "Is it old?", "<eos><bos>", "", None):
        own = {"query": QUERY, "passage": "a dull film"}
        if instruction is not None:
            own["instruction"] = instruction
        (expected,) = classifier.classify([own])
        scores.add(expected.probability)
        for dialect in DIALECTS:
            body = dialect.body(["a dull film"], instruction=instruction)
            _, answer = ask(server, dialect.path, body)
            assert np.allclose(dialect.scores(answer, 1), expected.probabilities[0], atol=1e-6)
    assert len(scores) == 4, "the default is what stands where there is none"


def test_long_documents(server: Server, bundles: dict[str, Path]) -> None:
    """Refused unless they are to be cut, but cut without a word in Cohere's dialect, as there."""
    (cut,) = Classifier.load(bundles["relevance"]).classify([(QUERY, LONG)])
    assert cut.truncated
    for dialect in DIALECTS:
        status, answer = ask(server, dialect.path, dialect.body([LONG], truncate=True))
        assert status == 200
        assert np.allclose(dialect.scores(answer, 1), cut.probabilities[0], atol=1e-6)
        more = {"truncate": False} if dialect is COHERE else {}
        status, answer = ask(server, dialect.path, dialect.body(["a", LONG], **more))
        assert status == dialect.long
        assert "text 1, all its fields together, has more than 120 tokens" in dialect.said(answer)
    assert ask(server, "/v2/rerank", COHERE.body([LONG]))[0] == 200
    for side, status in (("right", 200), ("left", 422), ("up", 422)):
        body = TEI.body([LONG], truncate=True, truncation_direction=side)
        assert ask(server, "/rerank", body)[0] == status


def test_what_every_dialect_refuses(server: Server) -> None:
    """Each in its own words, and the server goes on."""
    many = ["a"] * (MOST + 1)
    for dialect in DIALECTS:
        ranks = dialect in (JINA, COHERE)
        for body, status, said in (
            (dialect.body([]), dialect.bad, f"{dialect.texts} is []"),
            ({dialect.query: "a"}, dialect.bad, f"{dialect.texts} is None"),
            (dialect.body([1]), dialect.bad, "1"),
            (dialect.body([{"title": "a"}]), dialect.bad, "{'title': 'a'}"),
            (dialect.body(["\ud800"]), dialect.bad, "lone surrogate"),
            (dialect.body(["a"], query=1), dialect.bad, f"{dialect.query} is 1"),
            (dialect.body(["a"], colour=1), dialect.bad, "there is no field 'colour' here"),
            (dialect.body(["a"], truncate=1), dialect.bad, "truncate is 1; it must be true or"),
            (dialect.body(["a"], instruction=1), dialect.bad, "instruction is 1"),
            (dialect.body(["a"], query=LONG, truncate=True), dialect.long, "query"),
            (dialect.body(many), dialect.bad, "1001 texts, at most 1000 go in one request"),
            ([], dialect.bad, "it must be an object"),
            (b"{", 400, "the body is not JSON"),
            *(
                (dialect.body(["a"], top_n=top), 400, "top_n is")
                for top in (0, -1, True, "1", 1.5)
                if ranks
            ),
        ):
            found, answer = ask(server, dialect.path, body)
            assert (found, said in dialect.said(answer)) == (status, True), (dialect.path, answer)
        assert ask(server, dialect.path, dialect.body(["a"] * MOST))[0] == 200
        status, answer, headers = server.ask("POST", dialect.path, dialect.body(["a"]))
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert "send the server's key" in dialect.said(answer)


def test_bundles_that_do_not_rank(server: Server) -> None:
    for dialect in DIALECTS:
        for name, said in (
            ("text", "has to be given one text ('text'), and ranking takes two"),
            ("flags", "labels are independent of each other"),
        ):
            status, answer = ask(server, f"{dialect.path}?model={name}", dialect.body(["a"]))
            assert (status, said in dialect.said(answer)) == (400, True), answer


def test_the_models_name(server: Server) -> None:
    """In the body or the query; another is not found, in the dialect's words."""
    for dialect in (JINA, COHERE, VLLM):
        body = dialect.body(["a"], model="softmax")
        _, expected = ask(server, f"{dialect.path}?model=softmax", dialect.body(["a"]))
        _, answer = ask(server, dialect.path, body)
        assert np.allclose(dialect.scores(answer, 1), dialect.scores(expected, 1), atol=1e-6)
        assert ask(server, f"{dialect.path}?model=softmax", body)[0] == 200
        status, answer = ask(server, f"{dialect.path}?model=number", body)
        assert (status, "body names the model 'softmax'" in dialect.said(answer)) == (400, True)
        status, answer = ask(server, dialect.path, dialect.body(["a"], model="rerank-v3.5"))
        assert (status, 'no model "rerank-v3.5"' in dialect.said(answer)) == (404, True)
    assert ask(server, "/rerank?model=rerank-v3.5", TEI.body(["a"]))[0] == 404


def test_the_shapes_of_refusals(server: Server) -> None:
    """What vLLM's, Jina's, Cohere's and OpenAI's clients read of them."""
    _, own = ask(server, "/rerank", {})
    assert own["error_type"] == "bad_input"
    _, vllm = ask(server, "/score", {})
    assert vllm["error"].keys() == {"message", "type", "param", "code"}
    assert (vllm["error"]["type"], vllm["error"]["code"]) == ("BadRequestError", 400)
    _, jina = ask(server, "/v1/rerank", {})
    assert jina["error"]["message"] == jina["detail"] == jina["message"]
    _, cohere = ask(server, "/v2/rerank", {})
    assert cohere.keys() == {"id", "message"}
    _, openai = ask(server, "/v1/moderations", {"input": "a", "model": "none"})
    assert (openai["error"]["type"], openai["error"]["code"]) == (
        "invalid_request_error", "no_model",
    )  # fmt: skip


def test_moderations(server: Server, bundles: dict[str, Path]) -> None:
    """Categories are labels: of a softmax all but the last, which is true where it is the answer;
    of a score its first, and of independent labels all, from the threshold on."""
    texts = [*tiny.TEXTS, "<eos>"]
    for name, labels, threshold in (
        ("text", ["positive"], None),
        ("harm", ["positive"], 0.9),
        ("one", ["positive"], 0.5),
        ("several", ["positive", "negative"], 0.3),
    ):
        expected = Classifier.load(bundles[name]).classify(texts)
        status, answer = ask(server, "/v1/moderations", {"input": texts, "model": name})
        assert (status, answer["model"], len(answer["results"])) == (200, name, len(texts))
        seen = set()
        for found, own in zip(answer["results"], expected, strict=True):
            shares = dict(zip(labels, own.probabilities, strict=False))
            assert list(found["category_scores"]) == labels
            assert np.allclose(
                list(found["category_scores"].values()), own.probabilities[: len(labels)], atol=1e-6
            )
            true = {
                label: own.label == label if threshold is None else share >= threshold
                for label, share in shares.items()
            }
            assert found["categories"] == true
            assert found["flagged"] == any(true.values())
            assert found["category_applied_input_types"] == {label: ["text"] for label in labels}
            seen.add(found["flagged"])
        assert name == "several" or seen == {True, False}, "both happen"


def test_inputs_of_moderations(server: Server) -> None:
    part = {"type": "text", "text": "dull"}
    answers = [
        ask(server, "/v1/moderations?model=text", {"input": given})[1]["results"]
        for given in ("dull", ["dull"], [part])
    ]
    assert answers[0] == answers[1] == answers[2]
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    for given, said in (
        ([], "input is []"),
        (None, "input is None"),
        ([part, image], "only texts are classified here"),
        ([{"type": "text"}], "whose text is no string"),
        (["a", 1], "only texts are classified here"),
        ([part, part], "this has 2 texts; send several texts as a list of strings"),
        ("word " * 700, "text 0 has more than 120 tokens"),
        (["a"] * (MOST + 1), "1001 texts"),
    ):
        status, answer = ask(server, "/v1/moderations?model=text", {"input": given})
        assert (status, said in answer["error"]["message"]) == (400, True), answer
    long = {"input": "word " * 700, "truncate": True}
    assert ask(server, "/v1/moderations?model=text", long)[0] == 200
    status, answer = ask(server, "/v1/moderations?model=relevance", {"input": "dull"})
    assert (status, "the bundle's prompt takes several" in json.dumps(answer)) == (400, True)


def test_documents_share_batches(serve: Serve, bundles: dict[str, Path]) -> None:
    """Those of a request are run together."""
    server = serve(bundles["relevance"])
    server.ask("POST", "/rerank", TEI.body(["a dull film"] * 20))
    metrics = server.ask("GET", "/metrics")[1].decode()
    assert 'trimexport_batch_rows_count{model="relevance"} 1.0' in metrics
    assert 'trimexport_batch_rows_sum{model="relevance"} 20.0' in metrics
