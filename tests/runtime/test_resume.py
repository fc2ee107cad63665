"""A job that was killed goes on: nothing lost, nothing doubled, the same file in the end."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from trimexport_runtime import InputError
from trimexport_runtime.cli import main
from trimexport_runtime.columns import Column
from trimexport_runtime.files import Source
from trimexport_runtime.jobs import job
from trimexport_runtime.jobs.folder import Folder
from trimexport_runtime.jobs.job import Job
from trimexport_runtime.jobs.job import run as run_job
from trimexport_runtime.jobs.parts import Part, parts_in
from trimexport_runtime.progress import Progress

START = "from trimexport_runtime.cli import main; main()"
RECORDS = 6_000  # a dozen parts


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Two files in a directory, with a bad line in each."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        lines = [json.dumps({"text": f"a movie {number} of {name}"}) for number in range(RECORDS)]
        lines[1234] = "{"
        (folder / name).write_text("\n".join(lines))
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["classify", *map(str, arguments)])


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """The program, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", START, "classify", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def done_parts(output: Path) -> list[Path]:
    folder = output.with_name(f"{output.name}.job")
    return [it for it in folder.glob("*.json") if it.name != "job.json"]


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for something that a process brings about."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()
    process.wait()


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that score for another."""
    listing = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    found = [int(item) for item in listing.split()]
    return [pid for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.parametrize("name", ["out.parquet", "out.csv"])
@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_kill(bundle: Path, texts: Path, tmp_path: Path, name: str, workers: int) -> None:
    whole, output = tmp_path / f"whole-{name}", tmp_path / name
    assert run(bundle, "--file", texts, "-o", whole).exit_code == 1  # the bad lines
    arguments = (bundle, "--file", texts, "-o", output, "--workers", str(workers))
    for round_ in range(3):  # killed again and again
        before = len(done_parts(output))
        process = start(*arguments, "--resume")
        until(lambda: len(done_parts(output)) > before + 1, process)  # noqa: B023
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not output.exists(), round_
        assert done_parts(output)
    result = run(*arguments, "--resume", "--json")
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert summary["records"] == 2 * RECORDS
    assert 0 < summary["scored"] < 2 * RECORDS
    assert summary["bad"] == 2
    assert "a.jsonl, line 1235: the line is not JSON" in result.stderr
    assert output.read_bytes() == whole.read_bytes()
    assert sorted(it.name for it in tmp_path.iterdir()) == sorted(
        ["bundle", "texts", name, f"whole-{name}"]
    )


def test_processes_do_not_outlive_the_one_that_started_them(
    bundle: Path, texts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    process = start(bundle, "--file", texts, "-o", output, "--workers", "2")
    until(lambda: done_parts(output), process)
    workers = children_of(process)
    assert len(workers) == 2
    kill(process)
    _wait_for_the_end(workers)


def _wait_for_the_end(workers: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_worker_that_dies_ends_the_job_and_loses_nothing(
    bundle: Path, texts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    arguments = (bundle, "--file", texts, "-o", output)
    process = start(*arguments, "--workers", "2")
    until(lambda: done_parts(output), process)
    os.kill(children_of(process)[0], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert "a worker process ended with status -9" in said
    assert "parts are done and kept; --resume goes on with them" in said
    assert run(*arguments, "--resume").exit_code == 1
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    places = [(line["file"], line["line"]) for line in lines]
    assert places == [(it, n + 1) for it in ("a.jsonl", "b.jsonl") for n in range(RECORDS)]


def test_ctrl_c_keeps_what_is_done(bundle: Path, texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    process = start(bundle, "--file", texts, "-o", output, "--workers", "2")
    until(lambda: done_parts(output), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed == ""
    assert "parts are done and kept" in said
    assert said.endswith("Interrupted\n")
    assert "Traceback" not in said


class Interrupted(Progress):
    """Progress to which Ctrl-C comes after the first part."""

    def advance(self, steps: int = 1) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_between_two_parts_ends_the_processes_before_the_lock(
    bundle: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Also if it comes once more, while they are being ended."""
    output, alive, close, kill = tmp_path / "out.jsonl", [], Folder.close, BaseProcess.kill

    def watched(folder: Folder) -> int:
        alive.append(multiprocessing.active_children())
        return close(folder)

    def interrupted(process: BaseProcess) -> None:
        kill(process)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Folder, "close", watched)
    monkeypatch.setattr(BaseProcess, "kill", interrupted)
    with pytest.raises(KeyboardInterrupt) as error:
        run_job(Job(bundle, texts, output, workers=workers), Interrupted("texts"))
    assert alive == [[]]
    assert "parts are done and kept; --resume goes on" in error.value.__notes__[0]
    assert run(bundle, "--file", texts, "-o", output, "--resume").exit_code == 1  # the bad lines
    assert len(output.read_text().splitlines()) == 2 * RECORDS


def test_ctrl_c_before_the_first_part_releases_the_folder(
    bundle: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Folder.open

    def interrupted(folder: Folder, *arguments: Any, **named: Any) -> None:
        opened(folder, *arguments, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(Folder, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_job(Job(bundle, texts, tmp_path / "out.jsonl"), Progress("texts"))
    assert sorted(it.name for it in tmp_path.iterdir()) == ["bundle", "texts"]


def test_an_impatient_one_leaves_no_process(bundle: Path, texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    process = start(bundle, "--file", texts, "-o", output, "--workers", "2")
    until(lambda: done_parts(output), process)
    workers = children_of(process)
    for _ in range(5):
        os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    _wait_for_the_end(workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_rows_of_the_millionth_file(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Its parts have longer names, which as strings come before others."""
    (tmp_path / "texts").mkdir()
    for number in range(4):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"movie {number}\n")
    first = 999_998

    def numbered(files: Sequence[Source], columns: Sequence[Column]) -> Iterator[Part]:
        return (part for at, it in enumerate(files, first) for part in parts_in(it, at, columns))

    monkeypatch.setattr(job, "parts_of", numbered)
    output = tmp_path / "out.jsonl"
    run_job(Job(bundle, tmp_path / "texts", output, workers=workers), Progress("texts"))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["text"] for row in rows] == [f"movie {number}" for number in range(4)]


def test_what_is_there_is_not_lost(bundle: Path, texts: Path, tmp_path: Path) -> None:
    """An output or a job that is there is neither replaced nor mixed with another unasked."""
    output, other = tmp_path / "out.jsonl", tmp_path / "other.jsonl"
    arguments = (bundle, "--file", texts, "-o", output)
    assert run(*arguments).exit_code == 1
    first = output.read_bytes()
    refused = run(*arguments)
    assert (refused.exit_code, refused.stderr) == (
        1,
        f"Error: {output} is there already; replace it with --force\n",
    )
    again = run(*arguments, "--resume")
    assert again.exit_code == 0
    assert "is there already and no job to go on with" in again.stderr
    assert output.read_bytes() == first
    nothing = run(*arguments, "--resume", "--json")
    assert json.loads(nothing.stdout) == {"output": str(output), "scored": 0}
    other.write_text(json.dumps({"text": "one"}))
    assert run(bundle, "--file", other, "-o", output, "--force").exit_code == 0
    assert output.read_bytes() != first


def test_another_job_does_not_go_on(bundle: Path, texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    arguments = (bundle, "--file", texts, "-o", output)
    process = start(*arguments)
    until(lambda: done_parts(output), process)
    busy = run(*arguments, "--resume")
    assert busy.exit_code == 1
    assert f"another process is writing {output}" in busy.stderr
    kill(process)
    unfinished = run(*arguments)
    assert unfinished.exit_code == 1
    assert "has a job that did not end; go on with --resume" in unfinished.stderr
    column = run(*arguments, "--resume", "--column", "words")
    assert "a job with another column" in column.stderr
    (texts / "a.jsonl").write_text("{}")
    changed = run(*arguments, "--resume")
    assert (changed.exit_code, changed.stdout) == (1, "")
    assert "a job with another input" in changed.stderr
    assert "parts are done" not in changed.stderr
    assert len(done_parts(output)) > 0
    assert run(*arguments, "--force", "--json").exit_code == 1
    assert len(output.read_text().splitlines()) == RECORDS + 1


def test_half_a_folder_is_no_job(bundle: Path, texts: Path, tmp_path: Path) -> None:
    """What a kill left of a folder that was being removed does not get into another output."""
    output, other = tmp_path / "out.jsonl", tmp_path / "other.jsonl"
    process = start(bundle, "--file", texts, "-o", output)
    until(lambda: len(done_parts(output)) > 1, process)
    kill(process)
    (tmp_path / "out.jsonl.job" / "job.json").unlink()
    (tmp_path / "out.jsonl.job" / ".left.partial").touch()
    other.write_text(json.dumps({"text": "one"}))
    assert run(bundle, "--file", other, "-o", output).exit_code == 0
    assert [json.loads(line)["text"] for line in output.read_text().splitlines()] == ["one"]
    assert not (tmp_path / "out.jsonl.job").exists()


def test_a_damaged_job(bundle: Path, texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    folder = tmp_path / "out.jsonl.job"
    folder.mkdir()
    (folder / "job.json").write_bytes(b"")
    refused = run(bundle, "--file", texts, "-o", output, "--resume")
    assert (refused.exit_code, refused.stderr) == (
        1,
        f"Error: {folder / 'job.json'} is damaged, so the job cannot go on; begin anew with "
        "--force\n",
    )


def test_a_folder_that_another_has_is_left_alone(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    first, second = Folder(output), Folder(output)
    first.open({"a": 1})
    with pytest.raises(InputError, match="another process is writing"):
        second.open({"a": 1})
    second.close()
    assert first.exists
    first.close()
    assert not first.path.exists()


def test_every_file_is_looked_at_before_any_is_scored(
    bundle: Path, texts: Path, tmp_path: Path
) -> None:
    (texts / "z.csv").write_text("words\none\n")
    result = run(bundle, "--file", texts, "-o", tmp_path / "out.csv")
    assert result.exit_code == 1
    assert 'z.csv has no column "text"' in result.stderr
    assert sorted(it.name for it in tmp_path.iterdir()) == ["bundle", "texts"]


def test_results_are_for_those_whom_the_umask_lets_read_them(
    bundle: Path, texts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    before = os.umask(0o077)
    try:
        assert run(bundle, "--file", texts, "-o", output).exit_code == 1
    finally:
        os.umask(before)
    assert output.stat().st_mode & 0o777 == 0o600


def test_names_that_are_not_utf8(bundle: Path, texts: Path, tmp_path: Path) -> None:
    (texts / "a.jsonl").rename(os.fsdecode(os.fsencode(texts) + b"/\xff.jsonl"))
    for name in ("out.jsonl", "out.parquet", "out.csv"):
        assert run(bundle, "--file", texts, "-o", tmp_path / name).exit_code == 1
    rows = (tmp_path / "out.jsonl").read_text().splitlines()
    assert {json.loads(row)["file"] for row in rows} == {"b.jsonl", "\\udcff.jsonl"}


def test_a_job_that_fails_at_once_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"text": "a long text " * 300})] * 600  # more than a pipe takes at once
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    (bundle / "onnx" / "model.onnx").write_bytes(b"no graph")
    for workers in ("1", "2"):
        result = run(
            bundle, "--file", tmp_path / "in.jsonl", "-o", tmp_path / "o.csv", "--workers", workers
        )
        assert (result.exit_code, result.stdout) == (1, "")
        assert len(result.stderr.splitlines()) == 1
        assert "model.onnx has 8 bytes, the manifest says" in result.stderr
        assert sorted(it.name for it in tmp_path.iterdir()) == ["bundle", "in.jsonl"]
