"""How many cores a process may use: what its affinity and its control groups leave of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimexport_runtime import cores
from trimexport_runtime.backends.onnxruntime import session_options
from trimexport_runtime.cores import usable_cores


@pytest.fixture
def _sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose affinity has 16 cores, of a machine that has 32."""
    monkeypatch.setattr(cores, "_of_affinity", lambda: 16)
    monkeypatch.setattr(os, "cpu_count", lambda: 32)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.usefixtures("_sixteen")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16),
        # version 2: a container sees its own group as the root
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 16),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 16),
        ({"proc/self/cgroup": "0::/../..\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        # a group further up has less
        (
            {
                "proc/self/cgroup": "0::/a.slice/b.service\n",
                "sys/fs/cgroup/a.slice/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a.slice/b.service/cpu.max": "800000 100000\n",
            },
            4,
        ),
        # version 1, by the mount's name and by the link to it, with the host's path or without
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/docker/12ab\n1:name=systemd:/\n0::/\n",
                f"{V1}/docker/12ab/cpu.cfs_quota_us": "300000\n",
                f"{V1}/docker/12ab/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "5:cpuacct,cpu:/docker/12ab\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "500000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            5,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/\n4:cpuset:/x\nnonsense\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpuset/x/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpuset/x/cpu.cfs_period_us": "100000\n",
            },
            16,
        ),
    ],
)
def test_what_control_groups_grant(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert usable_cores(write(tmp_path, files)) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_the_affinity_counts() -> None:
    code = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from trimexport_runtime.cores import usable_cores
print(usable_cores())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.usefixtures("_sixteen")
def test_onnx_runtime_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert session_options().intra_op_num_threads == usable_cores() <= 16
    assert session_options(3).intra_op_num_threads == 3
    monkeypatch.setattr(os, "cpu_count", lambda: usable_cores())
    assert session_options().intra_op_num_threads == 0  # its own choice
