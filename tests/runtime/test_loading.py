"""A session and a tokenizer are loaded at the same time, and what loading copied is given back."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest

from trimexport_runtime import BundleError, Classifier, InputError, read_manifest
from trimexport_runtime.backends import DEFAULT, load_backend
from trimexport_runtime.choice import choose
from trimexport_runtime.loading import load_both

_LONG = 60  # seconds, which nothing here takes unless it would never end


def test_the_tokenizer_is_loaded_while_the_session_is_prepared() -> None:
    read = threading.Event()

    def session(begun: Any) -> bool:
        begun()
        return read.wait(_LONG)

    def tokenizer() -> str:
        read.set()
        return "tokenizer"

    assert load_both(session, tokenizer) == (True, "tokenizer")


def test_the_tokenizer_waits_until_the_session_is_prepared() -> None:
    order = []

    def session(begun: Any) -> None:
        order.append("graph read")
        begun()

    load_both(session, lambda: order.append("tokenizer"))
    assert order == ["graph read", "tokenizer"]


def test_a_session_that_says_nothing_is_followed_by_the_tokenizer() -> None:
    assert load_both(lambda begun: "session", lambda: "tokenizer") == ("session", "tokenizer")


def _refuse(error: Exception) -> NoReturn:
    raise error


def test_errors_of_either_are_raised() -> None:
    with pytest.raises(BundleError, match="graph"):
        load_both(lambda begun: _refuse(BundleError("graph")), lambda: "tokenizer")
    with pytest.raises(InputError, match="vocabulary"):
        load_both(lambda begun: "session", lambda: _refuse(InputError("vocabulary")))
    with pytest.raises(BundleError, match="graph"):
        load_both(
            lambda begun: _refuse(BundleError("graph")), lambda: _refuse(InputError("vocabulary"))
        )


def test_a_session_says_once_that_it_is_being_prepared(bundle: Path) -> None:
    """Which rests on where ONNX Runtime asks for the optimizers to leave out."""
    manifest = read_manifest(bundle)
    said = []
    load_backend(
        DEFAULT,
        bundle,
        manifest,
        choose(manifest),
        threads=None,
        token_budget=None,
        begun=lambda: said.append(threading.current_thread().name),
    )
    assert said == [threading.current_thread().name]


def test_classifiers_can_be_loaded_by_many_threads_at_once(bundle: Path) -> None:
    texts = ["a gorgeous, witty, seductive movie"]
    expected = Classifier.load(bundle).logits(texts).tobytes()
    found: list[bytes] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(Classifier.load(bundle).logits(texts).tobytes())
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


HOLES = """
import sys
import numpy as np
from trimexport_runtime.loading import load_both

def anonymous():
    lines = open("/proc/self/status", encoding="ascii")
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) >> 10

def copies(begun=None):
    blocks = [np.ones(1 << 20, np.uint8) for _ in range(200)]
    return blocks[::2]

np.ones(30 << 20, np.uint8)  # from here on glibc keeps what is smaller
before = anonymous()
kept = load_both(copies, lambda: None)[0] if sys.argv[1] == "load" else copies()
print(anonymous() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and is about glibc")
def test_large_blocks_that_were_freed_between_others_are_given_back() -> None:
    """100 MB stay of 200, and without `load_both` all would."""
    used = {
        how: int(subprocess.check_output([sys.executable, "-c", HOLES, how], text=True))
        for how in ("load", "plain")
    }
    if used["plain"] < 150:
        pytest.skip("this system's allocator leaves no holes")
    assert 95 <= used["load"] <= 115
