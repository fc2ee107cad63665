"""A description of the machine that is measured on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass

from trimexport_runtime.cores import usable_cores
from trimexport_runtime.cpu import facts, instructions


@dataclass(frozen=True)
class Machine:
    """A processor, its memory and its software.

    `cores` counts those that this process may use; `instructions` are the sets of
    `trimexport_runtime.cpu` that the processor has. Where the system does not tell them,
    `instructions` and `memory_bytes` are None.
    """

    processor: str
    cores: int
    instructions: tuple[str, ...] | None
    memory_bytes: int | None
    system: str
    python: str


def this_machine() -> Machine:
    """The machine that this process runs on."""
    return Machine(
        processor=facts().get("model name") or _processor_name(),
        cores=usable_cores(),
        instructions=instructions(),
        memory_bytes=_memory_bytes(),
        system=platform.platform(),
        python=platform.python_version(),
    )


def _processor_name() -> str:
    """The processor's name on systems without /proc/cpuinfo."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
