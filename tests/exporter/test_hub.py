"""Models by hub id, from a real server on the loopback interface.

Each download is a process of its own: huggingface_hub reads its settings when it is imported.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, Hub, serve
from tokenizers import Tokenizer

from tiny import edit_json
from trimexport import CheckpointError
from trimexport.source.hub import locate_model

LOCATE = """
import sys
from trimexport.errors import TrimexportError
from trimexport.source.hub import locate_model
try:
    print(locate_model(sys.argv[1], sys.argv[2] or None))
except TrimexportError as error:
    print(type(error).__name__, error)
"""
ADAPTER = """
import sys
from trimexport.errors import TrimexportError
from trimexport.source.hub import locate_adapter
try:
    print(locate_adapter(sys.argv[1]))
except TrimexportError as error:
    print(type(error).__name__, error)
"""
PLAN = """
import sys
from trimexport import BuildSpec, plan
spec = BuildSpec(model=sys.argv[1], labels=("positive", "negative"), prompt="R: {text}\\nS:")
planned = plan(spec)
print(planned.checkpoint.directory, planned.limit)
"""
RANKER = """
import sys
from trimexport import BuildSpec, plan
planned = plan(BuildSpec(model=sys.argv[1], prompt="R: {text}\\nS:"))
print(planned.labels, planned.score.kind)
"""
REFUSED = """
import json, sys
from trimexport import BuildSpec, plan
from trimexport.errors import TrimexportError
for model, spec in json.loads(sys.argv[1]):
    try:
        plan(BuildSpec(model=model, **spec))
    except TrimexportError as error:
        print(type(error).__name__, error)
"""
Locate = Callable[..., str]


@pytest.fixture
def hub(tmp_path: Path, tiny_model: Path) -> Iterator[Hub]:
    """A hub with one model, which also has a pickle and code, and a model of pickles alone."""
    whole = shutil.copytree(tiny_model, tmp_path / "hub" / "whole")
    (whole / "pytorch_model.bin").write_bytes(b"pickled")
    (whole / "modeling_mine.py").write_text("raise SystemExit", encoding="utf-8")
    pickled = shutil.copytree(whole, tmp_path / "hub" / "pickled")
    (pickled / "model.safetensors").unlink()
    with serve(Hub({"tiny/gemma": whole, "tiny/pickled": pickled})) as running:
        yield running


@pytest.fixture
def locate(tmp_path: Path) -> Locate:
    """Locate a model in a process that has the hub at `url` and an empty cache."""

    def run(
        url: str,
        model: str,
        revision: str = "",
        code: str = LOCATE,
        cache: str = "cache",
        **env: str,
    ) -> str:
        own = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        done = subprocess.run(
            [sys.executable, "-c", code, model, revision],
            env={**own, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / cache), **env},
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout.strip()

    return run


def test_a_model_is_downloaded_and_planned(hub: Hub, locate: Locate, tiny_model: Path) -> None:
    found, limit = locate(hub.url, "tiny/gemma", code=PLAN).rsplit(" ", 1)
    assert Path(found).name == COMMIT
    assert int(limit) > 100
    names = {path.name for path in Path(found).iterdir()}
    assert names == {path.name for path in tiny_model.iterdir()}
    weights = "model.safetensors"
    assert (Path(found) / weights).read_bytes() == (tiny_model / weights).read_bytes()
    assert not [path for path in hub.requests if path.endswith((".bin", ".py"))]
    before = len(hub.requests)
    assert locate("http://127.0.0.1:9", "tiny/gemma") == found  # from the cache
    assert locate(hub.url, "tiny/gemma", HF_HUB_OFFLINE="1") == found
    assert len(hub.requests) == before


def test_the_score_of_a_reranker_is_downloaded(hub: Hub, locate: Locate, tmp_path: Path) -> None:
    ranker = shutil.copytree(hub.repositories["tiny/gemma"], tmp_path / "hub" / "ranker")
    hub.repositories["tiny/ranker"] = ranker
    kind = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
    modules = [{"idx": 0, "path": "1_LogitScore", "type": kind}]
    (ranker / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (ranker / "1_LogitScore").mkdir()
    vocabulary = Tokenizer.from_file(str(ranker / "tokenizer.json"))
    tokens = {
        "true_token_id": vocabulary.token_to_id("▁positive"),
        "false_token_id": vocabulary.token_to_id("▁negative"),
    }
    (ranker / "1_LogitScore" / "config.json").write_text(json.dumps(tokens), encoding="utf-8")
    assert locate(hub.url, "tiny/ranker", code=RANKER) == "('positive', 'negative') log-odds"


def test_an_adapter_is_downloaded(hub: Hub, locate: Locate, tmp_path: Path) -> None:
    names = {"adapter_config.json", "adapter_model.safetensors"}
    hub.repositories["tiny/adapter"] = tmp_path / "hub" / "adapter"
    hub.repositories["tiny/adapter"].mkdir()
    for name in (*names, "adapter_model.bin", "optimizer.pt"):
        (hub.repositories["tiny/adapter"] / name).write_bytes(name.encode())
    found = Path(locate(hub.url, "tiny/adapter", code=ADAPTER))
    assert {path.name for path in found.iterdir()} == names
    said = locate("http://127.0.0.1:9", "tiny/another", code=ADAPTER)
    assert said.endswith("copy DIR here and give --adapter DIR")


def test_a_model_of_pickles_is_not_downloaded(hub: Hub, locate: Locate) -> None:
    said = locate(hub.url, "tiny/pickled")
    assert said.startswith("HubError tiny/pickled has no safetensors on the hub")
    assert "save_pretrained" in said
    assert not [path for path in hub.requests if path.endswith(".bin")]


def test_what_cannot_be_built_is_refused_before_its_weights_are_asked_for(
    hub: Hub, locate: Locate, tmp_path: Path
) -> None:
    """In one process, for it takes long to start."""
    whole = hub.repositories["tiny/gemma"]
    for name, change in (
        ("tiny/bert", {"architectures": ["BertForSequenceClassification"]}),
        ("tiny/both-ways", {"use_bidirectional_attention": True}),
    ):
        hub.repositories[name] = shutil.copytree(whole, tmp_path / "hub" / name)
        edit_json(hub.repositories[name] / "config.json", lambda it, new=change: it.update(new))
    carded = shutil.copytree(whole, tmp_path / "hub" / "tiny" / "card")
    hub.repositories["tiny/card"] = carded
    card = '[[prompt]]\nlabels = ["positive", "negative"]\ntemplate = "no place"\n'
    (carded / "prompts.toml").write_text(card, encoding="utf-8")
    labels = {"labels": ["positive", "negative"]}
    prompt = {"prompt": "R: {text}\nS:"}
    cases = {
        "UnsupportedError tiny/bert is a BertForSeq": ("tiny/bert", labels | prompt),
        "UnsupportedError tiny/both-ways attends": ("tiny/both-ways", labels | prompt),
        "SpecError a GemmaForCausalLM has no labels of its own; name": ("tiny/gemma", prompt),
        'SpecError there is 1 label ("one")': ("tiny/gemma", {"labels": ["one"]} | prompt),
        "SpecError no prompt is known for the labels positive,negative": ("tiny/gemma", labels),
        "SpecError the prompt 'no' has no field": ("tiny/gemma", labels | {"prompt": "no"}),
        "SpecError the prompt 'no place' has no field": ("tiny/card", labels),
    }
    said = locate(hub.url, json.dumps(list(cases.values())), code=REFUSED).splitlines()
    for line, start in zip(said, cases, strict=True):
        assert line.startswith(start)
    assert "is a BertForSequenceClassification; supported are GemmaForCausalLM" in said[0]
    assert "attends in both directions" in said[1]
    asked = {path.split("/")[-1] for path in hub.requests if "/resolve/" in path}
    assert asked == {"config.json", "prompts.toml"}


def test_a_cache_that_holds_a_part(hub: Hub, locate: Locate) -> None:
    """What is left when a model was refused by its configuration, or a download broke off."""
    hub.repositories["tiny/part"] = hub.repositories["tiny/gemma"]
    assert "no labels of its own" in locate(hub.url, json.dumps([("tiny/part", {})]), code=REFUSED)
    said = locate(hub.url, "tiny/part", HF_HUB_OFFLINE="1")
    assert said.startswith("HubError")
    assert "tiny/part" in said
    assert "no safetensors on the hub" not in said, "nobody knows that"


def test_a_gated_model(hub: Hub, locate: Locate) -> None:
    hub.gated = frozenset({"tiny/gemma"})
    said = locate(hub.url, "tiny/gemma")
    assert said.startswith("HubError tiny/gemma is gated: accept its terms at https://hugging")
    assert "hf auth login" in said


def test_a_model_whose_files_alone_are_gated(hub: Hub, locate: Locate) -> None:
    hub.gated_files = frozenset({"tiny/gemma"})
    assert locate(hub.url, "tiny/gemma").startswith("HubError tiny/gemma is gated")


def test_an_unknown_model(hub: Hub, locate: Locate) -> None:
    said = locate(hub.url, "tiny/none")
    assert said.startswith("HubError tiny/none is neither a directory here nor a repository")


def test_an_unknown_revision(hub: Hub, locate: Locate) -> None:
    said = locate(hub.url, "tiny/gemma", "v9")
    assert said.startswith("HubError tiny/gemma has no revision 'v9'")


def test_a_hub_that_fails(hub: Hub, locate: Locate) -> None:
    hub.failing = True
    assert locate(hub.url, "tiny/gemma").startswith("HubError tiny/gemma is no directory here and")


def test_a_download_that_breaks_off(hub: Hub, locate: Locate) -> None:
    hub.broken_files = frozenset({"model.safetensors"})
    said = locate(hub.url, "tiny/gemma")
    assert said.startswith("HubError tiny/gemma is no directory here and the hub cannot be reached")


def test_a_hub_that_cannot_be_reached(locate: Locate) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = locate(f"http://127.0.0.1:{port}", "tiny/gemma")
    assert said.startswith("HubError tiny/gemma is no directory here and the hub cannot be reached")
    assert "hf download tiny/gemma --local-dir DIR" in said


def test_offline_without_a_copy(hub: Hub, locate: Locate) -> None:
    said = locate(hub.url, "tiny/gemma", HF_HUB_OFFLINE="1")
    assert said.startswith("HubError tiny/gemma is no directory here and the hub cannot be reached")
    assert not hub.requests


def test_a_cache_that_cannot_be_written(hub: Hub, locate: Locate, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    said = locate(hub.url, "tiny/gemma", cache="file/cache")
    assert said.startswith("HubError tiny/gemma")
    assert "set HF_HOME to another place" in said


def test_a_directory_is_itself(tiny_model: Path) -> None:
    assert locate_model(str(tiny_model), None) == tiny_model


@pytest.mark.parametrize("model", ["build/none/here", "/none", "./none/x", "~/x", "gemma"])
def test_what_is_neither_a_directory_nor_an_id(model: str) -> None:
    with pytest.raises(CheckpointError, match="does not exist; --model takes a directory"):
        locate_model(model, None)


def test_a_file_is_not_a_model(tiny_model: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file; --model takes a directory"):
        locate_model(str(tiny_model / "model.safetensors"), None)


@pytest.mark.parametrize("model", ["", " "])
def test_an_empty_name_is_no_model(model: str) -> None:
    with pytest.raises(CheckpointError, match="name is empty; --model takes a directory"):
        locate_model(model, None)
