"""What many tests share: traced graphs, and bundles."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

import tiny
from tasks import SENTIMENT
from traced_graphs import share
from trimexport import build

# How fast a machine is decides no test.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(autouse=True, scope="session")
def _traced_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What one worker has traced the others read: see `traced_graphs`."""
    base = tmp_path_factory.getbasetemp()
    share((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "traced-graphs")


@pytest.fixture(autouse=True, scope="session")
def _listening() -> Iterator[None]:
    """Tests and the processes that they start hear Ctrl-C, also where the run is a job in the
    background, whose processes inherit that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="module")
def _what_stays() -> Iterator[None]:
    """What is loaded after a file's tests stays, and is not looked through again by each of the
    collections that a build makes: a seventh of its time."""
    yield
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests of what this machine may not have were not run, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    for marker in ("gpu", "tensorrt"):
        reasons = Counter(
            report.longrepr[2].removeprefix("Skipped: not run: ")
            for report in skipped
            if marker in report.keywords and isinstance(report.longrepr, tuple)
        )
        for reason, count in reasons.items():
            terminalreporter.write_line(f"{count} tests marked {marker} were not run: {reason}")


@pytest.fixture(scope="session")
def sentiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of gemma-mini's first task. Shared: do not change it, copy it."""
    return build(SENTIMENT, tmp_path_factory.mktemp("bundles") / "sentiment").directory


@pytest.fixture(scope="session")
def sentiment_int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in int8 alone. Shared: do not change it, copy it."""
    spec = replace(SENTIMENT, precision=("int8",))
    return build(spec, tmp_path_factory.mktemp("bundles") / "sentiment-int8").directory


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """A tiny Gemma, saved by transformers. Shared: do not change it."""
    return tiny.tiny_model()


@pytest.fixture(scope="session")
def tiny_bundle() -> Path:
    """Its bundle. Shared: do not change it."""
    return tiny.tiny_bundle()


@pytest.fixture(scope="session")
def pairs() -> Path:
    """A tiny bundle for pairs of texts. Shared: do not change it."""
    return tiny.pair_bundle()


@pytest.fixture(scope="session")
def questions() -> Path:
    """A tiny bundle that asks two questions. Shared: do not change it."""
    return tiny.questions_bundle()


@pytest.fixture
def tiny_copy(tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to break."""
    return shutil.copytree(tiny.tiny_model(), tmp_path / "model")


@pytest.fixture
def tiny_bundle_copy(tmp_path: Path) -> Path:
    """A copy of its bundle, to break."""
    return shutil.copytree(tiny.tiny_bundle(), tmp_path / "bundle")
