"""A server whose bundles run several batches at once."""

from __future__ import annotations

import concurrent.futures
import time
from pathlib import Path

from click.testing import CliRunner

from server.conftest import Serve
from trimexport_runtime import Classifier
from trimexport_runtime.cli import main

TEXTS = ["dull", "a good film", "two hours that feel like five", "a gorgeous, witty movie " * 9]


def test_answers_are_those_of_one_batch_at_a_time(serve: Serve, bundle: Path) -> None:
    """Bit for bit, of requests of one text and of many, from eight clients; metrics count each."""
    server = serve(bundle, TRIMEXPORT_WORKERS="2")
    alone = Classifier.load(bundle, threads=1)
    expected = [list(alone.classify([text])[0].probabilities) for text in TEXTS]
    requests = [[place % 4] if place % 3 else [0, 1, 2, 3] * 5 for place in range(48)]

    def ask(places: list[int]) -> bool:
        status, answer, _ = server.ask("POST", "/classify", {"texts": [TEXTS[it] for it in places]})
        found = [list(it["probabilities"].values()) for it in answer["predictions"]]
        return (status, found) == (200, [expected[it] for it in places])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, requests))
    metrics = server.ask("GET", "/metrics")[1].decode()
    texts = float(sum(map(len, requests)))
    assert f'trimexport_texts_total{{model="{server.name}"}} {texts}' in metrics
    assert f'trimexport_batch_rows_sum{{model="{server.name}"}} {texts}' in metrics
    assert f'trimexport_queue_tokens{{model="{server.name}"}} 0.0' in metrics


def test_what_was_accepted_is_answered_by_all_workers(serve: Serve, bundle: Path) -> None:
    server = serve(bundle, "--workers", 3)
    body = {"texts": ["a good film that is long " * 20] * 300}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(server.ask, "POST", "/classify", body) for _ in range(4)]
        idle = f'trimexport_queue_tokens{{model="{server.name}"}} 0.0'.encode()
        while idle in server.ask("GET", "/metrics")[1]:
            time.sleep(0.01)
        code, _ = server.stop()
        found = [it.result() for it in asked]
    assert code == 0
    assert [status for status, _, _ in found] == [200] * 4


def test_packs_run_in_turn(bundle: Path, tmp_path: Path) -> None:
    for workers in ("0", "2"):
        options = ["--packs", str(tmp_path), "--workers", workers]
        result = CliRunner().invoke(main, ["serve", str(bundle), *options])
        assert result.exit_code == 2
    assert "Packs run in turn, a batch at a time; leave --workers out." in result.stderr
