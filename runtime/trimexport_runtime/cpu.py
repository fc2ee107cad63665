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


def facts() -> dict[str, str]:
    """What Linux says of the first processor, names in lower case; nothing elsewhere."""
    try:
        first, _, _ = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def instructions() -> tuple[str, ...] | None:
    """Those of `INSTRUCTIONS` that the processor has; None where the system does not tell (it does
    on Linux)."""
    known = facts()
    has = known.get("flags", known.get("features"))  # as x86 and Arm call it
    return None if has is None else tuple(it for it in INSTRUCTIONS if it in has.split())
