"""How many cores this process may use, which in containers and under schedulers is fewer than the
machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """The cores of this process's affinity, but no more than the CPU time that its control groups
    grant, rounded up; at least one.

    Args:
        root: where `proc` and `sys` are.
    """
    return max(1, min([_of_affinity(), *map(math.ceil, _granted(root))]))


def threads_beside(workers: int) -> int:
    """How many threads each of several batches that run at once in one session of ONNX Runtime may
    use. All but its own they share, so that together they have the cores of this process, and a
    batch alone has all but those of the others."""
    return max(1, usable_cores() - workers + 1)


def _of_affinity() -> int:
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on
        return int(os.process_cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _granted(root: Path) -> Iterator[float]:
    """The cores' worth of time that each control group grants which this process is in; nothing
    where none limits it."""
    groups = root / "sys" / "fs" / "cgroup"
    for line in _lines(root / "proc" / "self" / "cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            read, mounts = _second, [groups]
        elif "cpu" in controllers.split(","):
            read, mounts = _first, [groups / controllers, groups / "cpu"]
        else:
            continue
        pieces = [piece for piece in path.split("/") if piece]
        if ".." in pieces:  # above the namespace, of which only the mount can be seen
            pieces = []
        for mount in mounts:
            for depth in range(len(pieces) + 1):
                yield from read(mount.joinpath(*pieces[:depth]))


def _second(group: Path) -> Iterator[float]:
    """The grant of a group of version 2: microseconds, or `max`, in each period of so many."""
    for line in _lines(group / "cpu.max"):
        quota, period = (*line.split(), "")[:2]
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _first(group: Path) -> Iterator[float]:
    """The same of version 1, where -1 is no limit."""
    quotas, periods = (_lines(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    for quota, period in zip(quotas, periods, strict=False):
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _lines(path: Path) -> list[str]:
    """A file's lines; none where the system has no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
