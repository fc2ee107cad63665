"""Ctrl-C and termination at any moment of a real build: exit 130, and nothing is left."""

from __future__ import annotations

import contextlib
import importlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result

import tiny

LABELS = ("--labels", "positive,negative")
PROMPT = ("--prompt", "Review: {text}\\nSentiment:")
INSPECT = importlib.import_module("trimexport.cli.inspect")  # the package has a command so named
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def _listening() -> Iterator[None]:
    """Python's own handler, also where the tests were started as a job that ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory of its own for the output."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def start(tmp_path: Path, tiny_model: Path) -> Iterator[Start]:
    """Start a build in a process that can be interrupted; it ends with the test at the latest."""
    started: list[subprocess.Popen[str]] = []

    def run(output: Path, *more: str) -> subprocess.Popen[str]:
        command = [
            *tiny.PROGRAM,
            "build",
            "--model",
            str(tiny_model),
            *LABELS,
            *PROMPT,
            "-o",
            str(output),
        ]
        process = subprocess.Popen(
            [*command, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_listen,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def _listen() -> None:
    """Do not inherit that signals are ignored, as a job in the background does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _wait_for(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _ends(process: subprocess.Popen[str]) -> None:
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert printed == ""
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said
    assert said.splitlines()[-1] == "Interrupted"


def _mapped(process: subprocess.Popen[str], name: str) -> bool:
    with contextlib.suppress(OSError):
        return name in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
    return False


def _partial(place: Path, inside: str) -> bool:
    return any(place.glob(f".*/{inside}"))


def test_nothing_is_claimed_of_what_was_kept(
    tiny_invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(INSPECT, "make_spec", interrupted)
    result = tiny_invoke("inspect", *LABELS)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted\n")


def test_an_impatient_one_does_not_disturb_the_end(
    tiny_invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unfinished:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            signal.raise_signal(signal.SIGTERM)

    def interrupted(*_: object) -> None:
        with Unfinished():
            signal.raise_signal(signal.SIGINT)

    echo = click.echo

    def echo_late(*arguments: object, **named: object) -> None:
        signal.raise_signal(signal.SIGINT)
        echo(*arguments, **named)

    monkeypatch.setattr(INSPECT, "make_spec", interrupted)
    monkeypatch.setattr(click, "echo", echo_late)
    result = tiny_invoke("inspect", *LABELS)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted\n")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
def test_while_pytorch_is_imported(start: Start, place: Path) -> None:
    process = start(place / "bundle")
    _wait_for(process, lambda: _mapped(process, "libtorch_cpu"))
    process.send_signal(signal.SIGINT)
    _ends(process)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(("number", "delay"), [(signal.SIGINT, 0.0), (signal.SIGTERM, 1.5)])
def test_while_the_graph_is_traced(start: Start, place: Path, number: int, delay: float) -> None:
    process = start(place / "bundle")
    _wait_for(process, lambda: any(place.iterdir()))
    time.sleep(delay)
    process.send_signal(number)
    _ends(process)
    assert list(place.iterdir()) == []


def test_while_it_measures(start: Start, place: Path) -> None:
    process = start(place / "new" / "bundle")
    _wait_for(process, lambda: _partial(place / "new", "trimexport.json"))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # an impatient one
    _ends(process)
    assert list(place.iterdir()) == []


def test_the_old_bundle_survives_while_the_new_one_is_written(
    start: Start, place: Path, tiny_bundle_copy: Path
) -> None:
    output = tiny_bundle_copy.rename(place / "bundle")
    before = tiny.snapshot(output)
    process = start(output, "--force")
    _wait_for(process, lambda: _partial(place, "onnx"))
    process.send_signal(signal.SIGINT)
    _ends(process)
    assert list(place.iterdir()) == [output]
    assert tiny.snapshot(output) == before
