"""The command line, in this process and in one of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import tiny
from trimexport.cli import main


@pytest.fixture
def tiny_invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command line in this process, in an empty directory `work`."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def invoke(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(it) for it in arguments], prog_name="trimexport")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception  # a traceback, had it been a process
        return result

    return invoke


@pytest.fixture
def tiny_refused(tiny_invoke: Callable[..., Result], tmp_path: Path) -> Callable[..., str]:
    """Run a command line that fails: one message, nothing printed, nothing left behind."""

    def refuse(*arguments: object, code: int = 1) -> str:
        before = sorted((tmp_path / "work").rglob("*"))
        result = tiny_invoke(*arguments)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        assert sorted((tmp_path / "work").rglob("*")) == before
        assert "Traceback" not in result.stderr
        assert "Error: " in result.stderr
        return result.stderr

    return refuse


@pytest.fixture
def tiny_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command line in a process of its own."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*tiny.PROGRAM, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    return run
