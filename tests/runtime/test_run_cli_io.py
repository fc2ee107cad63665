"""What the operating system refuses is named for what it is: bundle, input or output."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from trimexport_runtime import (
    IntegrityError,
    check_files,
    classifier,
    cli,
    read_manifest,
    records,
)

PROGRAM = str(Path(sys.executable).with_name("trimexport-run"))
Edit = Callable[[Path, Callable[[dict[str, Any]], None]], None]


def run(*arguments: str | Path) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(cli.main, [str(item) for item in arguments])


@pytest.mark.parametrize("target", ["none", "model.onnx"])
def test_a_dangling_link_in_a_bundle(bundle: Path, target: str) -> None:
    path = bundle / "onnx" / "model.onnx"
    path.unlink()
    path.symlink_to(target)
    for command in (("classify", bundle, "a"), ("info", bundle, "--check")):
        result = run(*command)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"Error: {path} is missing from the bundle")


def test_a_name_that_the_system_refuses(bundle: Path, edit_manifest: Edit) -> None:
    edit_manifest(bundle, lambda raw: raw["files"][0].update(path="n" * 300))
    with pytest.raises(IntegrityError, match="copy the bundle again or rebuild it"):
        check_files(bundle, read_manifest(bundle), hashes=False)


def test_a_bundle_that_stops_being_readable(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(classifier, "check_files", refuse)
    result = run("classify", bundle, "a")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {bundle} cannot be loaded ([Errno 5] Input/output")


def test_standard_input_that_cannot_be_read(bundle: Path, tmp_path: Path) -> None:
    command = f'"{PROGRAM}" classify "{bundle}" - 0>"{tmp_path / "file"}"'
    result = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.startswith(b"Error: standard input cannot be read (")


def test_loading_a_large_variant_is_announced(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[bool] = []
    monkeypatch.setattr(records.Progress, "show", lambda self: shown.append(True))
    assert run("classify", bundle, "a").exit_code == 0
    assert shown == []
    monkeypatch.setattr(records, "_LARGE", read_manifest(bundle).variant().bytes - 1)
    assert run("classify", bundle, "a").exit_code == 0
    assert shown == [True]
