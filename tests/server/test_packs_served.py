"""A directory of task packs that is served on one backbone, and followed as it changes."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toy_backbones as toy
from server.conftest import Serve, Server
from toy_backbones import task_arrays, write_pack
from trimexport_runtime import Backbone, BundleError, Classifier
from trimexport_runtime.server.packs import Changes, PackFolder
from trimexport_runtime.server.service import Service
from trimexport_runtime.server.settings import Settings
from trimexport_runtime.server.turns import Turns

TEXT = "you won a prize"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy backbone. Shared: do not change it."""
    return toy.make_backbone(tmp_path_factory.mktemp("backbones") / "toy")


@pytest.fixture
def packs(backbone: Path, tmp_path: Path) -> Path:
    """A directory with the packs of three tasks."""
    folder = tmp_path / "packs"
    folder.mkdir()
    for seed, name in enumerate(("mood", "spam", "topic")):
        labels = [f"{name}{n}" for n in range(2 + seed)]
        write_pack(folder / f"{name}.pack", backbone, task_arrays(seed, len(labels)), labels)
    return folder


def wait_for(happened: Callable[[], Any]) -> Any:
    """What `happened` gives once it is true."""
    until = time.monotonic() + 60
    while not (value := happened()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return value


def shares(server: Server, name: str, text: str = TEXT) -> list[float]:
    status, body, _ = server.ask("POST", f"/classify?model={name}", {"texts": [text]})
    assert (status, body.get("model")) == (200, name), body
    return list(body["predictions"][0]["probabilities"].values())


def alone(backbone: Path, pack: Path, text: str = TEXT) -> list[float]:
    return list(Classifier.load(backbone, task=pack).classify([text])[0].probabilities)


def log_of(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines(keepends=True)]


def test_every_pack_is_served_by_its_name(
    serve: Serve, backbone: Path, packs: Path, tmp_path: Path
) -> None:
    (packs / "cut.pack").write_bytes((packs / "spam.pack").read_bytes()[:-100])
    other = toy.make_backbone(tmp_path / "other", seed=8)
    write_pack(packs / "others.pack", other, task_arrays(1))
    (packs / "folder.pack").mkdir()
    (packs / "link.pack").symlink_to(packs / "nothing")
    (packs / "README.txt").write_text("no pack")
    (packs / ".spam.pack").write_text("a hidden file")
    server = serve(backbone, "--packs", packs)

    _, info, _ = server.ask("GET", "/info")
    assert [model["name"] for model in info["models"]] == ["mood", "spam", "topic"]
    assert sorted(info["unavailable"]) == ["cut", "folder", "link", "others"]
    assert "its file was cut" in info["unavailable"]["cut"]
    assert f"and {backbone} is" in info["unavailable"]["others"]
    assert "is a directory" in info["unavailable"]["folder"]
    assert "does not exist" in info["unavailable"]["link"]
    _, index, _ = server.ask("POST", "/v2/repository/index")
    states = {item["name"]: (item["state"], item["reason"]) for item in index}
    assert states["spam"] == ("READY", "")
    assert states["cut"] == ("UNAVAILABLE", info["unavailable"]["cut"])
    _, index, _ = server.ask("POST", "/v2/repository/index", {"ready": True})
    assert [item["name"] for item in index] == ["mood", "spam", "topic"]
    assert server.ask("POST", "/v2/repository/index", [1])[0] == 422

    for name in ("mood", "spam", "topic"):
        wanted = alone(backbone, packs / f"{name}.pack")
        np.testing.assert_allclose(shares(server, name), wanted, atol=1e-6)
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
        _, body, _ = server.ask("POST", f"/v2/models/{name}/infer", {"inputs": [tensor]})
        np.testing.assert_allclose(body["outputs"][1]["data"], wanted, atol=1e-6)
        _, body, _ = server.ask("POST", f"/predict?model={name}", {"inputs": TEXT})
        assert {item["label"] for item in body} == {f"{name}{n}" for n in range(len(wanted))}
        _, body, _ = server.ask("POST", "/v1/moderations", {"input": TEXT, "model": name})
        assert f"{name}0" in body["results"][0]["categories"]

    status, body, _ = server.ask("POST", "/classify", {"texts": [TEXT]})
    assert (status, body["error_type"]) == (404, "no_model")
    assert body["error"] == "name a model, as ?model=NAME; there are: mood, spam, topic"
    _, metrics, _ = server.ask("GET", "/metrics")
    assert b'trimexport_texts_total{model="spam"} 4.0' in metrics
    _, described, _ = server.ask("GET", "/openapi.json")
    (named,) = described["paths"]["/v2/models/{name}"]["get"]["parameters"]
    assert named["schema"]["enum"] == ["mood", "spam", "topic"]
    said = {line["pack"]: line["error"] for line in log_of(server) if "pack" in line}
    assert said == {f"{name}.pack": reason for name, reason in info["unavailable"].items()}


def test_packs_come_change_and_go_while_they_are_asked(
    serve: Serve, backbone: Path, packs: Path
) -> None:
    server = serve(backbone, "--packs", packs)
    before = shares(server, "spam")
    stopped, answers = threading.Event(), []

    def ask() -> None:
        while not stopped.is_set():
            answers.append(shares(server, "spam"))

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        labels = ("spam0", "spam1", "spam2")
        write_pack(packs / "spam.pack", backbone, task_arrays(9, 3), labels)
        write_pack(packs / "new.pack", backbone, task_arrays(10))
        after = alone(backbone, packs / "spam.pack")
        wait_for(lambda: answers and np.allclose(answers[-1], after, atol=1e-6))
        wait_for(lambda: server.ask("GET", "/v2/models/new/ready")[0] == 200)
    finally:
        stopped.set()
        for asker in askers:
            asker.join()
    assert all(
        np.allclose(answer, before, atol=1e-6) or np.allclose(answer, after, atol=1e-6)
        for answer in answers
    )
    np.testing.assert_allclose(shares(server, "new"), alone(backbone, packs / "new.pack"), 1e-5)
    (packs / "spam.pack").write_bytes(b"no pack")
    reason = wait_for(lambda: server.ask("GET", "/info")[1]["unavailable"].get("spam"))
    assert reason.endswith("; the one before it is still served")
    np.testing.assert_allclose(shares(server, "spam"), after, atol=1e-6)
    (packs / "spam.pack").unlink()
    wait_for(lambda: server.ask("GET", "/v2/models/spam/ready")[0] == 404)
    _, info, _ = server.ask("GET", "/info")
    assert [model["name"] for model in info["models"]] == ["mood", "new", "topic"]
    assert info["unavailable"] == {}
    _, metrics, _ = server.ask("GET", "/metrics")
    assert b'model="spam"' not in metrics
    status, lines = server.stop()
    assert status == 0
    happened = [(key, line[key]) for line in lines for key in ("loaded", "dropped") if key in line]
    assert sorted(happened) == [("dropped", "spam"), ("loaded", "new"), ("loaded", "spam")]


def test_a_request_under_way_is_answered_by_the_task_that_was_removed(
    serve: Serve, backbone: Path, packs: Path
) -> None:
    server = serve(backbone, "--packs", packs)
    wanted = shares(server, "spam")
    body = json.dumps({"texts": [TEXT]}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("POST", "/classify?model=spam")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:5])
    wait_for(lambda: server.ask("GET", "/v2/models/spam/ready")[0] == 200)
    (packs / "spam.pack").unlink()
    wait_for(lambda: server.ask("GET", "/v2/models/spam/ready")[0] == 404)
    connection.send(body[5:])
    answer = connection.getresponse()
    assert answer.status == 200
    made = json.loads(answer.read())["predictions"][0]["probabilities"]
    np.testing.assert_allclose(list(made.values()), wanted, atol=1e-6)
    connection.close()


def test_a_directory_may_be_empty_at_first_and_be_gone_for_a_while(
    serve: Serve, backbone: Path, packs: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    server = serve(backbone, "--packs", empty)
    _, body, _ = server.ask("POST", "/classify", {"texts": [TEXT]})
    assert body["error"] == "name a model, as ?model=NAME; there are: none"
    assert server.ask("GET", "/openapi.json")[0] == 200
    shutil.copy(packs / "spam.pack", empty / "spam.pack")
    wait_for(lambda: server.ask("GET", "/v2/models/spam/ready")[0] == 200)
    status, body, _ = server.ask("POST", "/classify", {"texts": [TEXT]})
    assert (status, body["model"]) == (200, "spam")  # the only one needs no name
    empty.rename(tmp_path / "away")
    wait_for(lambda: any("cannot be read" in line.get("error", "") for line in log_of(server)))
    assert shares(server, "spam")
    (tmp_path / "away").rename(empty)
    shutil.copy(packs / "mood.pack", empty / "mood.pack")
    wait_for(lambda: server.ask("GET", "/v2/models/mood/ready")[0] == 200)


def test_mixed_traffic_has_the_answers_that_each_task_gives_alone(
    serve: Serve, backbone: Path, packs: Path
) -> None:
    server = serve(backbone, "--packs", packs)
    texts = [f"{TEXT} {'again ' * n}" for n in range(8)]
    wanted = {
        (name, text): alone(backbone, packs / f"{name}.pack", text)
        for name in ("mood", "spam", "topic")
        for text in texts
    }
    found: dict[tuple[str, str], list[float]] = {}

    def ask(name: str) -> None:
        for text in texts:
            found[name, text] = shares(server, name, text)

    askers = [threading.Thread(target=ask, args=(name,)) for name in ("mood", "spam", "topic")]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert found.keys() == wanted.keys()
    for key, answer in found.items():
        np.testing.assert_allclose(answer, wanted[key], atol=1e-6)


@pytest.fixture
def folder(backbone: Path, packs: Path) -> tuple[PackFolder, Path]:
    """A directory that has been looked at once, and its path."""
    loaded = PackFolder(Backbone.load(backbone, threads=1), packs)
    assert sorted(loaded.look().loaded) == ["mood", "spam", "topic"]
    return loaded, packs


def test_a_file_counts_once_it_no_longer_changes(
    backbone: Path, folder: tuple[PackFolder, Path]
) -> None:
    looked, packs = folder
    whole = (packs / "spam.pack").read_bytes()
    for size in (100, 2000):
        (packs / "new.pack").write_bytes(whole[:size])
        changes = looked.look()
        assert changes == Changes()
    (packs / "new.pack").write_bytes(whole)
    assert not looked.look().loaded
    assert list(looked.look().loaded) == ["new"]
    assert not looked.look().loaded


def test_a_pack_that_failed_is_tried_again_when_it_changes(
    folder: tuple[PackFolder, Path],
) -> None:
    looked, packs = folder
    whole = (packs / "spam.pack").read_bytes()
    (packs / "new.pack").write_bytes(whole[:2000])
    looked.look()
    assert list(looked.look().bad) == ["new"]
    assert not looked.look().bad  # it is said once
    (packs / "new.pack").write_bytes(whole)
    looked.look()
    assert list(looked.look().loaded) == ["new"]
    assert looked.unavailable == {}


def test_nothing_is_dropped_where_the_directory_cannot_be_read(
    folder: tuple[PackFolder, Path], tmp_path: Path
) -> None:
    looked, packs = folder
    packs.rename(tmp_path / "away")
    with pytest.raises(BundleError, match=f"{packs} cannot be read"):
        looked.look()
    (tmp_path / "away").rename(packs)
    (packs / "mood.pack").unlink()
    assert looked.look().dropped == ["mood"]


def test_turns_are_taken_in_order() -> None:
    turns, order, asked = Turns(), [], []

    def take(number: int) -> None:
        asked.append(number)
        with turns:
            order.append(number)

    with turns:
        takers = []
        for number in range(5):
            takers.append(threading.Thread(target=take, args=(number,)))
            takers[-1].start()
            wait_for(lambda number=number: len(turns._waiting) == number + 1)
        assert not order
    for taker in takers:
        taker.join()
    assert order == list(range(5))


def test_a_task_that_was_removed_is_freed_once_it_has_answered(backbone: Path, packs: Path) -> None:
    loaded = Backbone.load(backbone, threads=1)
    service = Service({}, Settings(), {})

    async def live() -> weakref.ref[Any]:
        service.add("spam", loaded.task(packs / "spam.pack"))
        model = service.model("spam")
        service.lease(model)
        gone = weakref.ref(model.classifier._backend)
        service.remove("spam")
        loaded.drop("spam")
        answered = await service.classify(model, [TEXT], False, lambda future: None)
        assert answered.predictions[0].label
        assert gone() is not None
        service.release(model)
        for worker in model.batcher._workers:
            worker.join(60)
        return gone

    gone = asyncio.run(live())
    gc.collect()
    assert gone() is None
    service.close()
