"""Limits of time and size; slow clients; keys; the log; how a server ends."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from server.conftest import START, Serve, Server
from trimexport_runtime import Classifier
from trimexport_runtime.cli import main

LONG = "word " * 700


def test_long_texts_are_cut_where_that_is_asked(serve: Serve, bundle: Path) -> None:
    server = serve(bundle)
    status, answer, _ = server.ask("POST", "/classify", {"texts": [LONG], "truncate": True})
    assert status == 200
    assert answer["predictions"][0]["truncated"]


def test_a_full_queue(serve: Serve, bundle: Path) -> None:
    server = serve(bundle, "--max-queue", 1, "--cors-origin", "*")
    texts = {"texts": ["a good film " * 30] * 400}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: server.ask("POST", "/classify", texts), range(8)))
    statuses = [status for status, _, _ in found]
    assert 200 in statuses, "what finds the queue empty is taken, however much it is"
    assert set(statuses) == {200, 429}
    refused = next(it for it in found if it[0] == 429)
    assert refused[1]["error_type"] == "queue_full"
    assert refused[2]["retry-after"] == "1"
    assert refused[2]["access-control-allow-origin"] == "*"


def test_a_key(serve: Serve, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("geheim\n")
    server = serve(bundle, "--api-key-file", tmp_path / "key")
    body = {"texts": ["a"]}
    assert server.ask("GET", "/health")[0] == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "geheim"}):
        status, answer, found = server.ask("POST", "/classify", body, headers)
        assert (status, answer["error_type"]) == (401, "unauthorized")
        assert found["www-authenticate"] == "Bearer"
    assert server.ask("POST", "/classify", body, {"Authorization": "Bearer geheim"})[0] == 200


def test_options_from_the_environment(serve: Serve, bundle: Path) -> None:
    server = serve(bundle, TRIMEXPORT_MAX_TEXTS="2", TRIMEXPORT_API_KEY="k")
    status, answer, _ = server.ask("GET", "/info", headers={"Authorization": "Bearer k"})
    assert (status, answer["limits"]["max_texts"]) == (200, 2)


def _until_closed(connection: socket.socket) -> bytes:
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


def test_slow_clients(serve: Serve, bundle: Path) -> None:
    """Half a request's headers, and half a body: both end, the second with an answer."""
    server = serve(bundle, "--timeout", 1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as half:
        half.sendall(b"POST /classify HT")
        assert _until_closed(half) == b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as half:
        half.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        answer = half.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert server.ask("GET", "/health")[0] == 200


def test_a_request_whose_headers_come_slowly_after_one_that_did_not(
    serve: Serve, bundle: Path
) -> None:
    server = serve(bundle, "--timeout", 1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b'{"ready":true}'):
            answer += connection.recv(65536)
        connection.sendall(b"GET /health HT")
        assert _until_closed(connection) == b""


def test_a_client_that_does_not_read(serve: Serve, bundle: Path) -> None:
    """It is left, so that it does not hold the server's end up."""
    server = serve(bundle, "--timeout", 1, "--drain", 30)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        deaf.settimeout(10)
        with contextlib.suppress(OSError):  # reset, a pipe that is broken, or no more room
            for _ in range(100_000):
                deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
        began = time.monotonic()
        code, _ = server.stop()
    assert code == 0
    assert time.monotonic() - began < 20, "it waited for the client"


def test_what_is_no_http(serve: Serve, bundle: Path) -> None:
    server = serve(bundle)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"\x16\x03\x01 what\r\n\r\n")
        head, _, body = _until_closed(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error_type"] == "bad_http"
    assert b'trimexport_errors_total{kind="bad_http"} 1.0' in server.ask("GET", "/metrics")[1]


def _texts_classified(server: Server) -> float:
    lines = server.ask("GET", "/metrics")[1].decode().splitlines()
    found = [line.split()[-1] for line in lines if line.startswith("trimexport_texts_total")]
    return float(found[0]) if found else 0.0


def test_clients_that_hang_up(serve: Serve, bundle: Path) -> None:
    """Nobody works on what they asked, beyond the batch that runs."""
    server = serve(bundle, "--max-queue", 10**7)
    body = json.dumps({"texts": ["a good film " * 30] * 1000}).encode()
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    for size in (10, len(body)):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.port)) as gone:
                gone.sendall(head + body[:size])
                time.sleep(0.1)
    status, answer, _ = server.ask("POST", "/classify", {"texts": ["dull"]})
    assert (status, answer["predictions"][0]["label"]) == (200, "negative")
    assert _texts_classified(server) == 1
    _, lines = server.stop()
    assert [line["status"] for line in lines if line.get("texts") == 1000].count(499) >= 4


def test_a_long_text_holds_nobody_up(serve: Serve, bundle: Path) -> None:
    """Texts far over the limit are refused without being tokenised; others are so aside of the
    rest, and count by what is kept of them."""
    server = serve(bundle, "--max-body", 30_000_000, "--max-queue", 20_000)
    status, answer, _ = server.ask("POST", "/classify", {"texts": ["a good film " * 600_000]})
    assert (status, answer["error_type"]) == (413, "text_too_long")
    blank = {"texts": [" " * 300_000], "truncate": True}  # no words, by which it could be cut
    status, answer, _ = server.ask("POST", "/classify", blank)
    assert (status, answer["error_type"]) == (422, "bad_input")
    assert "text 0: the text is much longer than 504 tokens and has no words" in answer["error"]
    long = {"texts": ["a good film " * 1_000_000, *[" " * 60_000] * 30], "truncate": True}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.ask, "POST", "/classify", long)
        answered = 0
        while not slow.done():
            assert server.ask("POST", "/classify", {"texts": ["dull"]})[0] == 200
            answered += 1
    assert slow.result()[0] == 200
    assert answered > 5, "others were answered while the text was tokenised"


def test_a_token_that_the_model_does_not_know(serve: Serve, tiny_bundle_copy: Path) -> None:
    """In a bundle of an earlier build: that request is refused, and no other."""
    path = tiny_bundle_copy / "tokenizer.json"
    own = json.loads(path.read_text(encoding="utf-8"))
    own["added_tokens"].append({**own["added_tokens"][0], "id": 8000, "content": "<img>"})
    path.write_text(json.dumps(own), encoding="utf-8")
    manifest = tiny_bundle_copy / "trimexport.json"
    raw = json.loads(manifest.read_text(encoding="utf-8"))
    (entry,) = (it for it in raw["files"] if it["path"] == "tokenizer.json")
    entry["bytes"] = path.stat().st_size
    manifest.write_text(json.dumps(raw), encoding="utf-8")
    server = serve(tiny_bundle_copy)
    status, answer, _ = server.ask("POST", "/classify", {"texts": ["a", "see <img> here"]})
    assert (status, answer["error_type"]) == (422, "bad_input")
    assert answer["error"].startswith("text 1: the text has the token ")
    assert "<img>' (8000), and the model knows 8,000" in answer["error"]
    assert server.ask("POST", "/classify", {"texts": ["see here"]})[0] == 200


def test_a_log_that_nobody_reads(bundle: Path) -> None:
    """Neither a pipe that is full nor one that is closed holds answers up."""
    command = [sys.executable, "-c", START, "serve", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        port = json.loads(process.stderr.readline())["port"]
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.connect()
            for place in range(1500):
                connection.request("GET", "/health")
                assert connection.getresponse().read() == b'{"ready":true}'
                if place == 1000:
                    process.stderr.close()
            connection.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()


def test_the_log(serve: Serve, bundle: Path) -> None:
    """One JSON object for each request, and the text only where that was asked for."""
    for options, shown in (((), False), (("--log-texts",), True)):
        server = serve(bundle, *options)
        server.ask("POST", "/classify", {"texts": ["a secret"]})
        code, lines = server.stop()
        assert code == 0
        (line,) = lines
        assert (line["method"], line["path"], line["status"]) == ("POST", "/classify", 200)
        assert line["milliseconds"] > 0
        assert (line.get("content") == ["a secret"]) == shown
        assert ("secret" in json.dumps(line)) == shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered(serve: Serve, bundle: Path, number: int) -> None:
    server = serve(bundle)
    body = {"texts": ["a good film that is long " * 20] * 500}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(server.ask, "POST", "/classify", body) for _ in range(4)]
        while (
            b'trimexport_queue_tokens{model="' + server.name.encode() + b'"} 0.0'
            in (server.ask("GET", "/metrics")[1])
        ):
            time.sleep(0.01)
        code, _ = server.stop(number)
        found = [it.result() for it in asked]
    assert code == 0
    assert [status for status, _, _ in found] == [200] * 4
    with pytest.raises(ConnectionError):
        server.ask("GET", "/health")


def test_what_is_not_answered_in_time_is_told_so(serve: Serve, bundle: Path) -> None:
    server = serve(bundle, "--drain", 0.5, "--max-queue", 10**7)
    body = {"texts": ["a good film that is long " * 20] * 1000}
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(server.ask, "POST", "/classify", body) for _ in range(16)]
        time.sleep(1)
        code, lines = server.stop()
        found = [it.result() for it in asked]
    assert code == 0
    statuses = [status for status, _, _ in found]
    assert set(statuses) <= {200, 503}
    assert 503 in statuses
    assert all(body["error_type"] == "shutting_down" for status, body, _ in found if status == 503)
    assert len(lines) >= 16


def test_an_address_that_is_taken(serve: Serve, bundle: Path) -> None:
    server = serve(bundle)
    result = CliRunner().invoke(main, ["serve", str(bundle), "--port", str(server.port)])
    assert result.exit_code == 1
    assert f"127.0.0.1:{server.port} cannot be listened on" in result.stderr


def test_wrong_commands(bundle: Path, tmp_path: Path) -> None:
    cases = [
        (["a=" + str(bundle), "a=" + str(bundle)], "named a, a; give each a name of its own"),
        ([f"a/b={bundle}"], "a bundle cannot be served as 'a/b', which cannot be a part of a path"),
        ([f"a\udcff={bundle}"], "a bundle cannot be served as 'a\\udcff'"),
        ([str(tmp_path)], "is not a bundle"),
        ([str(bundle), "--api-key-file", str(tmp_path / "none")], "none cannot be read"),
    ]
    for arguments, said in cases:
        result = CliRunner().invoke(main, ["serve", *arguments])
        assert result.exit_code == 1
        assert said in result.stderr
    for option in ("--wait", "--timeout", "--drain"):
        for number in ("nan", "inf", "-1"):
            result = CliRunner().invoke(main, ["serve", str(bundle), option, number])
            assert result.exit_code == 2, (option, number)


def test_many_at_once_get_their_own(serve: Serve, bundle: Path) -> None:
    """Texts of all lengths from many clients: each gets what it gets alone, bit for bit."""
    texts = [("a good film " * (it % 40 + 1)) + str(it) for it in range(240)]
    expected = Classifier.load(bundle).classify(texts)
    server = serve(bundle)

    def ask(place: int) -> Any:
        status, answer, _ = server.ask("POST", "/classify", {"texts": [texts[place]]})
        assert status == 200
        return answer["predictions"][0]["probabilities"]

    def batches() -> int:
        metrics = server.ask("GET", "/metrics")[1].decode().splitlines()
        (count,) = (line for line in metrics if line.startswith("trimexport_batch_rows_count"))
        return int(float(count.split()[-1]))

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        for asked in range(1, 11):  # on a busy machine clients may come one after the other
            answers = list(pool.map(ask, range(len(texts))))
            assert [tuple(it.values()) for it in answers] == [it.probabilities for it in expected]
            if batches() < asked * len(texts):
                return
    pytest.fail("no two texts shared a batch")
