"""A job on a Ray cluster of two nodes, real ones on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from packages import needs_wheels, run_with
from trimexport_runtime.cli import main

RECORDS = 20_000
MINUTE = 60  # of seconds; the limits only end what hangs, whatever machine this is

JOB = """
import contextlib, json, os, signal, subprocess, sys, time
from pathlib import Path
from ray.cluster_utils import Cluster

bundle, texts, output = sys.argv[1], sys.argv[2], Path(sys.argv[3])
def started(start, **options):
    for _ in range(9):  # Ray itself gives a node half a minute
        try:
            return start(**options)
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    raise SystemExit("Ray did not start")

cluster = started(Cluster, initialize_head=True, head_node_args={"num_cpus": 1})
node = started(cluster.add_node, num_cpus=1)

def actors():
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words, parent = entry.read_bytes(), entry.with_name("status").read_text()
        except OSError:
            continue
        if b"_Actor" in words and words.startswith(b"ray::"):
            found.append(int(entry.parent.name))
    return found

def done():
    return len(list(Path(f"{output}.job").glob("*-*.json")))

start = "from trimexport_runtime.cli import main; main()"
command = ["classify", bundle, "--file", texts, "-o", str(output), "--engine", "ray", "--json"]
job = subprocess.Popen(
    [sys.executable, "-c", start, *command],
    env={**os.environ, "RAY_ADDRESS": cluster.address},
    stdout=subprocess.PIPE,
    text=True,
)
def until(reached):
    while not reached():
        assert job.poll() is None, "the job ended before anything died"
        time.sleep(0.02)

def tell(number):
    for process in actors():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)

try:
    until(lambda: done() >= 3 and len(actors()) == 2)
    os.kill(max(actors()), signal.SIGKILL)
    enough = done() + 3
    until(lambda: done() >= enough)
    tell(signal.SIGSTOP)  # so that what is done now is all that is done when the node ends
    was_done = done()
    cluster.remove_node(node, allow_graceful=False)
    tell(signal.SIGCONT)
    printed, _ = job.communicate(timeout=float(sys.argv[4]))
finally:
    job.kill()
    cluster.shutdown()
print(json.dumps([job.returncode, json.loads(printed), was_done]))
"""


def test_deaths_in_the_middle(bundle: Path, tmp_path: Path) -> None:
    """One actor a node. One is killed, then a node ends: the output is what one process makes, byte
    for byte."""
    wheels = needs_wheels("ray")
    given, alone, output = tmp_path / "in.jsonl", tmp_path / "alone.parquet", tmp_path / "o.parquet"
    with given.open("w") as stream:
        for number in range(RECORDS):
            stream.write(json.dumps({"text": f"movie {number} " + "of words " * 9}) + "\n")
    arguments = ["classify", str(bundle), "--file", str(given), "-o", str(alone)]
    one = CliRunner().invoke(main, arguments)
    assert one.exit_code == 0, one.output
    limit = str(20 * MINUTE)
    command = ("-c", JOB, str(bundle), str(given), str(output), limit)
    found = run_with([wheels], *command, timeout=30 * MINUTE)
    assert found.returncode == 0, found.stderr
    status, summary, was_done = json.loads(found.stdout.splitlines()[-1])
    assert status == 0, found.stderr
    assert 0 < was_done < RECORDS / 512
    assert (summary["records"], summary["bad"]) == (RECORDS, 0)
    assert output.read_bytes() == alone.read_bytes()


OWN = """
import sys
from pathlib import Path
import ray, ray.data
from trimexport_runtime.jobs.job import Job, run
from trimexport_runtime.progress import Progress

ray.init(num_cpus=1, log_to_driver=False)
context = ray.data.DataContext.get_current()
context.target_max_block_size = 12345
before = context.enable_progress_bars, sys.stdout
bundle, texts, output = map(Path, sys.argv[1:])
run(Job(bundle, texts, output, columns={"query": "q"}, engine="ray"), Progress("texts"))
assert ray.is_initialized()
assert (context.enable_progress_bars, sys.stdout) == before
assert context.target_max_block_size == 12345
print(ray.get(ray.remote(lambda: 7).remote()))
"""


def test_a_session_of_the_caller_s_own_stays(pairs: Path, tmp_path: Path) -> None:
    """And a job of several fields has the columns that it names."""
    wheels = needs_wheels("ray")
    given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text(json.dumps({"q": "one", "document": "two"}))
    found = run_with([wheels], "-c", OWN, str(pairs), str(given), str(output), timeout=5 * MINUTE)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "7"
    row = json.loads(output.read_text())
    assert (row["query"], row["document"]) == ("one", "two")
    assert row["label"]


def test_without_ray(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("raise ImportError('not here')")
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "one"}))
    start = "from trimexport_runtime.cli import main; main()"
    command = ["classify", str(bundle), "--file", "in.jsonl", "-o", "o.csv", "--engine", "ray"]
    path = (str(tmp_path), os.environ.get("PYTHONPATH"))
    found = subprocess.run(
        [sys.executable, "-c", start, *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1
    assert found.stderr.startswith("Error: Ray is not installed (not here); install ")
    assert not (tmp_path / "o.csv.job").exists()
