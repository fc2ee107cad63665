"""What this machine's processor has for integer matrix products, as far as the system tells."""

from __future__ import annotations

from pathlib import Path

INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
)
"""What decides how fast integer and half-precision matrix products are."""


def instructions() -> tuple[str, ...] | None:
    """Those of `INSTRUCTIONS` that the processor has; None where the system does not tell (it does
    on Linux)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):  # as x86 and Arm call it
            return tuple(item for item in INSTRUCTIONS if item in value.split())
    return None
